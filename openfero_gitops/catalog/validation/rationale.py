"""Why each rule is there, in words for whoever meets it in a review.

Beside the rules and not in them, so that a check reads as what it checks. `docs/rules.md` and
SARIF's help are made from it; a test keeps it complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFUSED: Final = "The API server refuses such a Job, and would do so when the alert fires."

#: By a rule's id: what happens where it is broken.
WHY: Final[Mapping[str, str]] = {
    # A file, before it is parsed.
    "file-too-large": "Every replica parses every file of every new commit. A file beyond this "
    "size is generated, or is no operario at all, and is left out before it costs anything.",
    "path-too-long": "No file system keeps such a path, so nobody could check the repository out "
    "and see what runs.",
    "path-too-deep": "A tree this deep was made to exhaust whatever walks it, not to be read.",
    "path-not-utf-8": "Such a name cannot be written on a Job, into a page or into JSON, so what "
    "ran could not be traced to its file.",
    "path-not-printable": "Control characters and marks that reorder text make a reviewer see "
    "another name than the one that is read.",
    "not-a-file": "A device, a socket or a pipe is never the same twice and may never end; only a "
    "folder can hold one, never a commit.",
    "symlink": "A link can lead out of the repository, to the controller's own files. It is not "
    "followed, so the operario that was meant does not exist.",
    "lfs-pointer": "Git holds three lines that name the content, and the content lies on another "
    "server, which no commit vouches for.",
    "linked-folder": "Links are not followed, so no operario in that folder is read.",
    "submodule": "Another repository's commits were not reviewed here; they are not fetched, so "
    "no operario in that folder is read.",
    "case-twins": "On a laptop whose file system knows no case, one of the two files is lost, and "
    "its operario with it.",
    "not-utf-8": "Only UTF-8 is read, as Kubernetes does: what a byte means in another encoding "
    "could only be guessed.",
    "syntax": "Nothing in the file can be read, and nothing of it is guessed: neither the "
    "operario above the error nor the one below it is in force.",
    "nesting": "No Kubernetes object nests this deep; parsers that recurse end on such a file.",
    "too-many-documents": "A file with this many documents is generated: nobody reviews it.",
    "alias-bomb": "A few lines of aliases can stand for gigabytes. They are counted before they "
    "are written out.",
    "duplicate-key": "YAML has no rule for which one counts, and readers differ: what was "
    "reviewed may not be what runs.",
    "key-not-text": "Kubernetes' objects are JSON, where a key is text. A value that begins with "
    "`{{` and has no quotes is read as a mapping within a mapping's key.",
    "not-a-number": "Kubernetes' objects are JSON, which has neither infinity nor NaN.",
    "custom-tag": "A tag asks the reader of a file to make something of it, which may be code. "
    "None is obeyed.",
    # What a document is.
    "no-alert": "It looks like an operario, and no alert would ever start it.",
    "alert-status": "Alertmanager knows no other state, so an operario for one would never run.",
    "operario-name": "The name stands on every Job as a label and in every page; Kubernetes "
    "takes letters, digits, `-` and `.`.",
    "api-version": "A version that is not known is not guessed at: it may mean something else by "
    "the same words. Nor is a kind: ignored, as kinds are that stand beside operarios, an operario "
    "whose kind was mistyped would leave its alert alone.",
    "wrapped-job": "The ConfigMap names an alert, and holds no Job for it, so nothing would run.",
    "other-job": "A Job that no alert starts is probably an operario whose name was mistyped.",
    "duplicate-name": "A Job records the name of its operario, and limits count by it. With two of "
    "one name, a page at three in the morning would not say which one ran; the first path stays.",
    "unknown-option": "A mistyped limit is no limit. An annotation under `openfero.io/` that is "
    "not known keeps its operario out of force, rather than run without it.",
    "option-value": "An option that cannot be read could only be replaced by its default, which "
    "the author did not want.",
    "reserved-key": "These keys tell the controller and Kueue what to do with the Job. An author "
    "who could set them could pretend that a Job was approved.",
    "no-effect": "Somebody wrote it to change something, and it changes nothing.",
    # The safety envelope.
    "envelope-key": "A mistyped limit is no limit: the whole revision is refused, and the catalog "
    "in force stays.",
    "envelope-value": "A limit that cannot be read would be none: the whole revision is refused, "
    "and the catalog in force stays.",
    "envelope-documents": "With two documents, which limits hold would depend on the reader.",
    "envelope-name": "Under any other name the file is not read, and its limits do not hold.",
    "envelope-missing": "A file that vanishes by accident must not take the limits of the whole "
    "cluster with it.",
    "short-remember": "Alertmanager repeats an alert as long as it fires. When the controller has "
    "forgotten it by then, the repetition starts another Job.",
    "ttl-below-remember": "A Job is the memory of its alert: when it is gone, a repetition of the "
    "alert starts another one. So it is kept for `remember` all the same.",
    "namespace-not-allowed": "The controller may create Jobs only where it was given the right, "
    "and Git can narrow that, never widen it. There is no fallback to another namespace, where the "
    "same Job could mean something else.",
    "namespace-ignored": "The Job runs in another namespace than the file seems to say.",
    "namespace-not-granted": "The line allows nothing, since the controller has no right there.",
    # A Job's fields.
    "wrong-type": _REFUSED,
    "required-field": _REFUSED,
    "not-one-of": "Kubernetes compares these words letter by letter. " + _REFUSED,
    "unknown-field": "The API server drops such a field in silence, and so the Job runs without "
    "it: without its limit, its label, its pull policy.",
    "out-of-range": _REFUSED,
    "restart-policy": "A Pod that restarts Always never ends, which Kubernetes refuses for a Job, "
    "and Always is what a Pod without a policy gets.",
    "reserved-field": "With them a Job takes over Pods of others, or is run by another controller, "
    "so that neither its limits nor its end would be seen.",
    "indexed-job": _REFUSED,
    "pod-failure-policy": _REFUSED,
    "no-containers": _REFUSED,
    "no-image": _REFUSED,
    "not-in-a-template": _REFUSED,
    "duplicate-in-pod": _REFUSED,
    "env-entry": _REFUSED,
    "port": _REFUSED,
    "security-context": _REFUSED,
    "probe": _REFUSED,
    "lifecycle": _REFUSED,
    "invalid-name": _REFUSED,
    "invalid-label": _REFUSED,
    "controller-label": _REFUSED,
    "quantity": _REFUSED,
    "requests-over-limits": _REFUSED,
    "resource-name": _REFUSED,
    "toleration": _REFUSED,
    "affinity": _REFUSED,
    "volume-mount": _REFUSED,
    "volume-source": _REFUSED,
    "volume-device": _REFUSED,
    "field-format": _REFUSED,
    "success-policy": _REFUSED,
    "resize-policy": _REFUSED,
    "dns": _REFUSED,
    "host-port": _REFUSED,
    "host-fields": _REFUSED,
    "claim": _REFUSED,
    "named-twice": _REFUSED,
    "operating-system": _REFUSED,
    "host-process": _REFUSED,
    # Alert data.
    "template-place": "Alert data is honoured where it can do no harm: in words of a command and "
    "in the values of variables. In an image, a mount or a name it would let whoever writes the "
    "alert choose what runs; so there it is an error, not a text that stays as it is.",
    "template-syntax": "OpenFero reads Go templates; here a field is named and nothing computed, "
    "so that rendering is the same on every replica and no value is executed as a template.",
    "label-in-shell": "A Pod may be called `x; rm -rf /`: the shell would run it. The controller "
    "refuses values with such characters there, so the remediation may be refused just when it is "
    "needed. What stands without quotes, or goes through `eval`, it cannot see: an alert may say "
    "that a Pod is called `--all`.",
    # What Kubernetes accepts, and a reviewer should see.
    "duplicate-env": "The last one counts, and whoever reads the first one believes otherwise.",
    "no-limits": "A remediation runs when the cluster is in trouble already. Without a limit it "
    "can take the memory of what it was to heal.",
    "image-tag": "The commit on a Job is to say what ran. `latest` means something else tomorrow.",
    "privileged": "Whoever can open a pull request could own the node.",
    "default-account": "Rights are given to the default ServiceAccount by accident: every Pod of "
    "the namespace has them. A remediation has a ServiceAccount for itself, or needs no token.",
    "host-path": "The Job reads and writes files of the node, its kubelet's credentials among "
    "them.",
    "host-namespace": "The Job sees and reaches what runs on the node, past every NetworkPolicy.",
    "service-account-undefined": "A Job whose ServiceAccount does not exist is accepted, gets no "
    "Pod, and waits in silence until its deadline.",
}
