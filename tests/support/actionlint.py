"""actionlint: a linter of GitHub's workflows, written in Go."""

from __future__ import annotations

from tests.support.go_tool import GoTool

ACTIONLINT = GoTool("actionlint", "github.com/rhysd/actionlint", "cmd/actionlint", "v1.7.12")
