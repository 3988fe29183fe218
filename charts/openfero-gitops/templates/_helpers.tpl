{{- define "openfero-gitops.fullname" -}}
{{- .Values.fullnameOverride | default .Values.nameOverride | default .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "openfero-gitops.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* The labels of an object. */}}
{{- define "openfero-gitops.labels" -}}
{{- include "openfero-gitops.labelsWith" (list . dict) }}
{{- end }}

{{- /* The labels of an object that has more of them: the context and these. */}}
{{- define "openfero-gitops.labelsWith" -}}
{{- $root := first . }}
{{- $own := include "openfero-gitops.selectorLabels" $root | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" (toString $root.Chart.AppVersion) }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $own "app.kubernetes.io/part-of" "openfero" }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- merge $own (last . | default dict) ($root.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{- /* The labels of the Pod of helm test: the Service and the policies must not select it. */}}
{{- define "openfero-gitops.testLabels" -}}
{{- $labels := include "openfero-gitops.labels" . | fromYaml }}
{{- set $labels "app.kubernetes.io/name" (printf "%s-test" (include "openfero-gitops.fullname" .)) | toYaml }}
{{- end }}

{{- /* The annotations of an object, with their key: the context and those of this object. */}}
{{- define "openfero-gitops.annotations" -}}
{{- with merge (dict) (last . | default dict) ((first .).Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "openfero-gitops.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "openfero-gitops.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- /* The name of the controller's ServiceAccount as a user of the API server. */}}
{{- define "openfero-gitops.userName" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "openfero-gitops.serviceAccountName" .) }}
{{- end }}

{{- define "openfero-gitops.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "openfero-gitops.jobsNamespace" -}}
{{- .Values.jobsNamespace.name | default (printf "%s-jobs" (.Release.Namespace | trunc 58 | trimSuffix "-")) }}
{{- end }}

{{- /* The namespaces that Jobs may run in, as a JSON list; the jobs namespace is the first. */}}
{{- define "openfero-gitops.allowedNamespaces" -}}
{{- prepend .Values.allowedNamespaces (include "openfero-gitops.jobsNamespace" .) | uniq | toJson }}
{{- end }}

{{- /* Whether to create the policies for Jobs and ConfigMaps: "true" or empty. */}}
{{- define "openfero-gitops.jobPolicy" -}}
{{- $create := .Values.jobPolicy.create | toString }}
{{- $apis := .Capabilities.APIVersions }}
{{- /* Rendered without a cluster, Helm knows no kinds, not even Deployment. */}}
{{- $known := $apis.Has "apps/v1/Deployment" }}
{{- $has := $apis.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" }}
{{- if or (eq $create "true") (and (eq $create "auto") (or $has (not $known))) }}true{{ end }}
{{- end }}

{{- /* Whether the controller may list Kueue's Workloads. */}}
{{- define "openfero-gitops.readWorkloads" -}}
{{- $read := .Values.kueue.readWorkloads | toString }}
{{- $apis := .Capabilities.APIVersions }}
{{- $has := or ($apis.Has "kueue.x-k8s.io/v1beta2") ($apis.Has "kueue.x-k8s.io/v1beta1") }}
{{- if or (eq $read "true") (and (eq $read "auto") $has) }}true{{ end }}
{{- end }}

{{- /* The Secret with the credentials of the webhook; empty without authentication. */}}
{{- define "openfero-gitops.webhookSecret" -}}
{{- if ne .Values.webhook.auth "none" }}
{{- .Values.webhook.existingSecret | default (printf "%s-webhook" (include "openfero-gitops.fullname" .)) }}
{{- end }}
{{- end }}

{{- /* The Secret with the key that signs the mirror. */}}
{{- define "openfero-gitops.mirrorSecret" -}}
{{- .Values.repository.mirror.existingSecret | default (printf "%s-mirror" (include "openfero-gitops.fullname" .)) }}
{{- end }}

{{- define "openfero-gitops.webhookKey" -}}
{{- .Values.webhook.key | default (eq .Values.webhook.auth "basic" | ternary "basic" "token") }}
{{- end }}

{{- define "openfero-gitops.webSecret" -}}
{{- if ne .Values.web.auth "none" }}
{{- .Values.web.existingSecret }}
{{- end }}
{{- end }}

{{- define "openfero-gitops.webKey" -}}
{{- .Values.web.key | default (eq .Values.web.auth "basic" | ternary "basic" "token") }}
{{- end }}

{{- define "openfero-gitops.alertmanagerKey" -}}
{{- .Values.alertmanager.key | default (eq .Values.alertmanager.auth "basic" | ternary "basic" "token") }}
{{- end }}

{{- /* The host names under which the pages are published. */}}
{{- define "openfero-gitops.pageHosts" -}}
{{- $hosts := list }}
{{- if .Values.ingress.pages.enabled }}
{{- $hosts = append $hosts .Values.ingress.pages.host }}
{{- end }}
{{- if .Values.httpRoute.pages.enabled }}
{{- $hosts = concat $hosts .Values.httpRoute.pages.hostnames }}
{{- end }}
{{- $hosts | uniq | toJson }}
{{- end }}

{{- /* The paths to publish of the "webhook" or the "pages", as JSON: the context and which. Probes and
metrics, which both ports serve without authentication, are not among them. */}}
{{- define "openfero-gitops.publicPaths" -}}
{{- if eq (last .) "pages" }}
{{- $paths := list (dict "path" "/" "type" "Exact") }}
{{- range list "about" "alerts" "api" "explain" "openapi.json" "operarios" "problems" "remediations" "static" "swagger" "sync" }}
{{- $paths = append $paths (dict "path" (printf "/%s" .) "type" "Prefix") }}
{{- end }}
{{- toJson $paths }}
{{- else }}
{{- $paths := list (dict "path" "/alerts" "type" "Exact") }}
{{- if (first .).Values.pushHook.existingSecret }}
{{- $paths = append $paths (dict "path" "/hooks/git" "type" "Exact") }}
{{- end }}
{{- toJson $paths }}
{{- end }}
{{- end }}

{{- define "openfero-gitops.scheme" -}}
{{- .Values.tls.existingSecret | empty | ternary "http" "https" }}
{{- end }}

{{- /* Whether a peer of a NetworkPolicy is everybody: all addresses, all Pods, or all Pods of the namespace. */}}
{{- define "openfero-gitops.openPeers" -}}
{{- range . }}
{{- $pods := .podSelector | default dict }}
{{- $namespaces := .namespaceSelector | default dict }}
{{- if .ipBlock }}
{{- if hasSuffix "/0" (toString .ipBlock.cidr) }}true{{ end }}
{{- else if not (or $pods.matchLabels $pods.matchExpressions $namespaces.matchLabels $namespaces.matchExpressions) }}true{{ end }}
{{- end }}
{{- end }}

{{- /* The ports for Git: the proxy's, and the repository's if it can be reached without the proxy. */}}
{{- define "openfero-gitops.gitPorts" -}}
{{- $ports := list }}
{{- with .Values.repository }}
{{- if .proxy }}
{{- $ports = append $ports (include "openfero-gitops.portOf" .proxy) }}
{{- end }}
{{- if or (not .proxy) .noProxy }}
{{- $ports = append $ports (include "openfero-gitops.portOf" .url) }}
{{- end }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{- define "openfero-gitops.alertmanagerPorts" -}}
{{- $ports := list }}
{{- range .Values.alertmanager.urls }}
{{- $ports = append $ports (include "openfero-gitops.portOf" .) }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}

{{- /* The port of an address. */}}
{{- define "openfero-gitops.portOf" -}}
{{- $url := . }}
{{- if contains "://" $url }}
{{- /* (urlParse refuses users such as ada@example.com.) */}}
{{- $host := regexReplaceAll "^[^/]*://([^/]*@)?([^/]*).*$" $url "${2}" }}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" }}
{{- $port | default (get (dict "https" "443" "http" "80" "ssh" "22") (splitList "://" $url | first)) | default "443" }}
{{- else }}
{{- "22" }}
{{- end }}
{{- end }}

{{- /* Stops the installation if a value does not look as files/formats.yaml says. */}}
{{- define "openfero-gitops.checkFormats" -}}
{{- range $format := .Files.Get "files/formats.yaml" | fromYaml }}
{{- range $path := $format.values }}
{{- $value := $.Values }}
{{- range splitList "." $path }}
{{- $value = get $value . }}
{{- end }}
{{- $given := list $value }}
{{- if kindIs "slice" $value }}
{{- $given = $value }}
{{- else if kindIs "map" $value }}
{{- $given = values $value }}
{{- end }}
{{- range $given }}
{{- $isEmpty := and (empty .) (kindIs "string" $value) (not $format.required) }}
{{- if not (or $isEmpty (and (regexMatch $format.pattern (toString .)) (not (empty .)))) }}
{{- fail (printf "%s is %s, but it must be %s" $path (toString . | quote) $format.sentence) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Stops the installation if values contradict each other, which the schema cannot express. */}}
{{- define "openfero-gitops.check" -}}
{{- /* What templates read before this must not fail without the defaults of this chart. */}}
{{- if not (hasKey .Values "connections") }}
{{- fail "the values are those of an earlier version of the chart, without the defaults of this one: use helm upgrade with --reset-then-reuse-values instead of --reuse-values" }}
{{- end }}
{{- include "openfero-gitops.checkFormats" . }}
{{- if has "alertname" .Values.webhook.replicaLabels }}
{{- fail "webhook.replicaLabels must not contain alertname: alerts that differ in it are different alerts" }}
{{- end }}
{{- $url := required "repository.url is required: the address of the Git repository with the operarios, for example --set repository.url=https://git.example.com/platform/operarios.git" .Values.repository.url }}
{{- $ssh := not (hasPrefix "http" $url) }}
{{- if or (regexMatch "^https?://[^/]*@" $url) (regexMatch "^ssh://[^/]*:[^/]*@" $url) }}
{{- fail "repository.url must not contain credentials, because everyone who can read Pods would see them: put them in a Secret and set repository.secret.name and repository.secret.credentialsKey" }}
{{- end }}
{{- if .Values.approvalPolicy }}
{{- fail "approvalPolicy was replaced by jobPolicy, which also checks approvals and is on by default: remove approvalPolicy.create, and set jobPolicy.create to false if you do not want the policy" }}
{{- end }}
{{- with .Values.repository.secret }}
{{- $https := or .credentialsKey .caKey .clientCertKey .clientPrivateKeyKey .proxyCredentialsKey }}
{{- if and .name (not (or $https .sshKey .knownHostsKey)) }}
{{- fail "repository.secret.name is set: also set repository.secret.credentialsKey, sshKey, knownHostsKey, caKey, clientCertKey or proxyCredentialsKey" }}
{{- end }}
{{- if and (not .name) (or $https .sshKey .knownHostsKey) }}
{{- fail "repository.secret.credentialsKey, sshKey and the other keys are keys of the Secret repository.secret.name, which is not set" }}
{{- end }}
{{- if ne (empty .clientCertKey) (empty .clientPrivateKeyKey) }}
{{- fail "repository.secret.clientCertKey and clientPrivateKeyKey require each other: a client certificate and its private key" }}
{{- end }}
{{- if and (or .clientCertKey .caKey) (hasPrefix "http://" $url) }}
{{- fail "repository.url is an http address: repository.secret.caKey, clientCertKey and clientPrivateKeyKey are for https" }}
{{- end }}
{{- if and $url $ssh (not (and .sshKey .knownHostsKey)) }}
{{- fail "repository.url is an SSH address: set repository.secret.name, repository.secret.sshKey and repository.secret.knownHostsKey" }}
{{- end }}
{{- if and $url $ssh $https }}
{{- fail "repository.url is an SSH address: repository.secret.credentialsKey, caKey, clientCertKey, clientPrivateKeyKey and proxyCredentialsKey are for HTTPS" }}
{{- end }}
{{- if and (not $ssh) (or .sshKey .knownHostsKey) }}
{{- fail "repository.url is not an SSH address: repository.secret.sshKey and knownHostsKey are for SSH" }}
{{- end }}
{{- end }}
{{- with .Values.repository }}
{{- if and $ssh .proxy }}
{{- fail "repository.url is an SSH address: repository.proxy is for HTTPS" }}
{{- end }}
{{- if and .noProxy (not .proxy) }}
{{- fail "repository.noProxy lists hosts to reach without repository.proxy, which is not set" }}
{{- end }}
{{- if and .secret.proxyCredentialsKey (not .proxy) }}
{{- fail "repository.secret.proxyCredentialsKey holds the credentials for repository.proxy, which is not set" }}
{{- end }}
{{- end }}
{{- with .Values.repository.verify }}
{{- if and .allowedSigners .allowedSignersKey }}
{{- fail "repository.verify.allowedSigners and allowedSignersKey both set SSH keys: set only one of them" }}
{{- end }}
{{- if and .existingSecret (not (or .allowedSignersKey .openpgpKeyringKey)) }}
{{- fail "repository.verify.existingSecret is set: also set repository.verify.allowedSignersKey or openpgpKeyringKey" }}
{{- end }}
{{- if and (not .existingSecret) (or .allowedSignersKey .openpgpKeyringKey) }}
{{- fail "repository.verify.allowedSignersKey and openpgpKeyringKey are keys of the Secret repository.verify.existingSecret, which is not set" }}
{{- end }}
{{- if and (eq .mode "none") (or .allowedSigners .existingSecret) }}
{{- fail "repository.verify lists signers, but repository.verify.mode is none, which checks no signatures: set it to commit or tag" }}
{{- end }}
{{- if and (ne .mode "none") (not (or .allowedSigners .existingSecret)) }}
{{- fail (printf "repository.verify.mode is %s: set the trusted keys with repository.verify.allowedSigners or existingSecret" .mode) }}
{{- end }}
{{- if and (eq .mode "tag") (not $.Values.repository.ref) }}
{{- fail "repository.verify.mode is tag: set repository.ref to the tag" }}
{{- end }}
{{- end }}
{{- with .Values.web }}
{{- if eq (int .port) 8080 }}
{{- fail "web.port must not be 8080, the port of the webhook" }}
{{- end }}
{{- if and .expose (eq .auth "none") }}
{{- fail "web.expose requires authentication: set web.auth to basic or bearer, and web.existingSecret to the Secret with the credentials; or set web.auth to proxy" }}
{{- end }}
{{- if and (has .auth (list "basic" "bearer")) (not .existingSecret) }}
{{- fail (printf "web.auth is %s: set web.existingSecret to the Secret with the credentials" .auth) }}
{{- end }}
{{- if eq .auth "proxy" }}
{{- if .existingSecret }}
{{- fail "web.auth is proxy: the proxy has the credentials, so leave web.existingSecret empty" }}
{{- end }}
{{- if not .trustedProxies }}
{{- fail "web.auth is proxy: set web.trustedProxies to the addresses of the proxy, for example the network of the Pods" }}
{{- end }}
{{- if and .expose (not $.Values.networkPolicy.enabled) (not .ownNetworkPolicy) }}
{{- fail "web.auth is proxy and networkPolicy.enabled is false: every Pod with an address in web.trustedProxies could name any user; set web.ownNetworkPolicy to true if a NetworkPolicy of your own lets only the proxy connect" }}
{{- end }}
{{- if and .expose $.Values.networkPolicy.enabled }}
{{- if or (not $.Values.networkPolicy.webFrom) (include "openfero-gitops.openPeers" $.Values.networkPolicy.webFrom) }}
{{- fail "web.auth is proxy: every Pod with an address in web.trustedProxies could name any user; set networkPolicy.webFrom to the Pods of the proxy" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $kind, $published := dict "ingress" .Values.ingress "httpRoute" .Values.httpRoute }}
{{- if and $published.pages.enabled (not (and $.Values.web.expose (ne $.Values.web.auth "none"))) }}
{{- fail (printf "%s.pages.enabled publishes the pages, which requires authentication: set web.expose to true, and web.auth to basic, bearer or proxy" $kind) }}
{{- end }}
{{- if and $published.webhook.enabled (eq $.Values.webhook.auth "none") (not $.Values.tls.clientCaKey) }}
{{- fail (printf "%s.webhook.enabled publishes the webhook, which requires authentication: set webhook.auth to bearer or basic" $kind) }}
{{- end }}
{{- range $name := list "webhook" "pages" }}
{{- $door := get $published $name }}
{{- if and $door.enabled (eq $kind "ingress") (not $door.host) }}
{{- fail (printf "ingress.%s.enabled is true: set ingress.%s.host to the host name" $name $name) }}
{{- end }}
{{- if and $door.enabled (eq $kind "httpRoute") (not $door.parentRefs) }}
{{- fail (printf "httpRoute.%s.enabled is true: set httpRoute.%s.parentRefs to the Gateway" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.ingress.webhook.enabled .Values.ingress.pages.enabled (eq .Values.ingress.webhook.host .Values.ingress.pages.host) }}
{{- fail "ingress.webhook.host and ingress.pages.host must differ, because the webhook and the pages both have the path /alerts" }}
{{- end }}
{{- with .Values.httpRoute }}
{{- if and .webhook.enabled .pages.enabled }}
{{- if not (and .webhook.hostnames .pages.hostnames) }}
{{- fail "httpRoute.webhook.hostnames and httpRoute.pages.hostnames must both be set, because the webhook and the pages both have the path /alerts" }}
{{- end }}
{{- range .webhook.hostnames }}
{{- if has . $.Values.httpRoute.pages.hostnames }}
{{- fail (printf "httpRoute.webhook.hostnames and httpRoute.pages.hostnames both have %s, but they must differ, because the webhook and the pages both have the path /alerts" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.webhook.key (not .Values.webhook.existingSecret) }}
{{- fail "webhook.key is a key of the Secret webhook.existingSecret, which is not set: the generated Secret needs no webhook.key" }}
{{- end }}
{{- if and (ne .Values.service.type "ClusterIP") (eq .Values.webhook.auth "none") (not .Values.tls.clientCaKey) }}
{{- fail (printf "service.type %s publishes the webhook, which requires authentication: set webhook.auth to bearer or basic" .Values.service.type) }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.tls.existingSecret (not .Values.serviceMonitor.tlsConfig) }}
{{- fail "tls.existingSecret is set: set serviceMonitor.tlsConfig, with which Prometheus verifies the certificate" }}
{{- end }}
{{- if and .Values.alertmanagerConfig.key (ne .Values.webhook.auth "bearer") }}
{{- fail (printf "alertmanagerConfig.key is the key of a token, but webhook.auth is %s: leave alertmanagerConfig.key empty" .Values.webhook.auth) }}
{{- end }}
{{- if .Values.alertmanagerConfig.enabled }}
{{- if and (eq .Values.webhook.auth "basic") .Values.webhook.existingSecret }}
{{- fail "alertmanagerConfig.enabled needs user name and password in two keys of a Secret, but webhook.existingSecret has them in one: set webhook.auth to bearer, or leave webhook.existingSecret empty" }}
{{- end }}
{{- if and .Values.tls.existingSecret (not .Values.alertmanagerConfig.tlsConfig) }}
{{- fail "tls.existingSecret is set: set alertmanagerConfig.tlsConfig, with which Alertmanager verifies the certificate" }}
{{- end }}
{{- end }}
{{- with .Values.alertmanager }}
{{- if and (not .urls) (or .existingSecret (ne .auth "none")) }}
{{- fail "alertmanager.auth and alertmanager.existingSecret are for the Alertmanagers in alertmanager.urls, which is empty" }}
{{- end }}
{{- if and (ne .auth "none") (not .existingSecret) }}
{{- fail (printf "alertmanager.auth is %s: set alertmanager.existingSecret to the Secret with the credentials" .auth) }}
{{- end }}
{{- if and .caKey (not .existingSecret) }}
{{- fail "alertmanager.caKey is a key of the Secret alertmanager.existingSecret, which is not set" }}
{{- end }}
{{- if and .existingSecret (eq .auth "none") (not .caKey) }}
{{- fail "alertmanager.existingSecret is set: also set alertmanager.auth or alertmanager.caKey" }}
{{- end }}
{{- end }}
{{- /* Deliveries in flight may take 9 s to finish; closing connections and sending the last Events takes 2 s. */}}
{{- $stopping := add .Values.preStopSleepSeconds .Values.shutdownDelaySeconds 11 }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (int $stopping) }}
{{- fail (printf "terminationGracePeriodSeconds is %d, but stopping takes up to %d seconds: preStopSleepSeconds, shutdownDelaySeconds, and 11 for deliveries in flight; raise it, or lower the other two" (int .Values.terminationGracePeriodSeconds) (int $stopping)) }}
{{- end }}
{{- if and .Values.tls.clientCaKey (not .Values.tls.existingSecret) }}
{{- fail "tls.clientCaKey is a key of the Secret tls.existingSecret, which is not set" }}
{{- end }}
{{- end }}
