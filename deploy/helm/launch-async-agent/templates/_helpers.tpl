{{- define "agent.name" -}}
{{- if contains "launch-agent" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-launch-agent" (.Release.Name | trunc 39 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "agent.namespace" -}}
{{- .Values.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "agent.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agent.labels" -}}
{{ include "agent.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "agent.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "agent.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* What W&B's chart calls the Secret of the API key, so that one that is there is found. */ -}}
{{- define "agent.keySecret" -}}
{{- .Values.agent.existingSecret.name | default (printf "wandb-api-key-%s" .Release.Name) -}}
{{- end -}}

{{- define "agent.leaseName" -}}
{{- .Values.lease.name | default (include "agent.name" .) -}}
{{- end -}}

{{- /* Namespaces of runs, as JSON, the agent's first; empty: all. */ -}}
{{- define "agent.targets" -}}
{{- if has "*" .Values.additionalTargetNamespaces -}}
[]
{{- else -}}
{{- concat (list (include "agent.namespace" .)) (.Values.additionalTargetNamespaces | default list) | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- /* Kinds of runs beside Jobs, as agent.resources gives them. */ -}}
{{- define "agent.kinds" -}}
{{- $given := .Values.kinds | default list -}}
{{- if .Values.volcano -}}
{{- $given = append $given (dict "apiVersion" "batch.volcano.sh/v1alpha1" "kind" "Job") -}}
{{- end -}}
{{- include "agent.resources" $given -}}
{{- end -}}

{{- /* Kinds as JSON: group, resource, and what agent.kubernetes.kinds calls them. */ -}}
{{- define "agent.resources" -}}
{{- $kinds := list -}}
{{- range . -}}
{{- $group := ternary (.apiVersion | splitList "/" | first) "" (contains "/" .apiVersion) -}}
{{- $resource := .resource | default (printf "%ss" (lower .kind)) -}}
{{- $kinds = append $kinds (dict "group" $group "resource" $resource "name" (printf "%s/%s" .apiVersion .kind)) -}}
{{- end -}}
{{- $kinds | toJson -}}
{{- end -}}

{{- /* launchConfig as keys and values, in JSON. */ -}}
{{- define "agent.given" -}}
{{- $given := .Values.launchConfig | default dict -}}
{{- if kindIs "string" $given -}}
{{- $given = fromYaml $given -}}
{{- end -}}
{{- if hasKey $given "Error" -}}
{{- fail (printf "launchConfig is not YAML of keys and values: %s" $given.Error) -}}
{{- end -}}
{{- if not (or $given.queues $given.queue) -}}
{{- fail "launchConfig names no queue: set at least `queues: [NAME]` in it" -}}
{{- end -}}
{{- $agent := $given.agent | default dict -}}
{{- range $key, $instead := dict "admin" "agent.adminPort" "state_dir" "persistence" "admin_token_file" "agent.adminTokenSecret" -}}
{{- if hasKey $agent $key -}}
{{- fail (printf "agent.%s in launchConfig is set by the chart: use the value %s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- if hasKey ($agent.kubernetes | default dict) "lease" -}}
{{- fail "agent.kubernetes.lease in launchConfig is set by the chart: use the value lease" -}}
{{- end -}}
{{- $given | toJson -}}
{{- end -}}

{{- /* launch-config.yaml: what is given, and what the pod needs. */ -}}
{{- define "agent.config" -}}
{{- $given := include "agent.given" . | fromJson -}}
{{- $agent := $given.agent | default dict -}}
{{- $kubernetes := $agent.kubernetes | default dict -}}
{{- $targets := include "agent.targets" . | fromJsonArray -}}
{{- if and $targets (not (hasKey $kubernetes "namespaces")) -}}
{{- $_ := set $kubernetes "namespaces" $targets -}}
{{- end -}}
{{- $kinds := list -}}
{{- range include "agent.kinds" . | fromJsonArray -}}
{{- $kinds = append $kinds .name -}}
{{- end -}}
{{- if $kinds -}}
{{- $_ := set $kubernetes "kinds" (concat ($kubernetes.kinds | default list) $kinds | uniq) -}}
{{- end -}}
{{- if .Values.lease.enabled -}}
{{- $_ := set $kubernetes "lease" (dict "name" (include "agent.leaseName" .) "duration" .Values.lease.duration "renew" .Values.lease.renew) -}}
{{- end -}}
{{- $_ := set $agent "state_dir" "/var/lib/launch-async/agent" -}}
{{- $_ := set $agent "admin" (printf "0.0.0.0:%d" (int .Values.agent.adminPort)) -}}
{{- if .Values.agent.adminTokenSecret.name -}}
{{- $_ := set $agent "admin_token_file" "/etc/launch-async-admin/token" -}}
{{- end -}}
{{- if not (hasKey $kubernetes "code_image") -}}
{{- $_ := set $kubernetes "code_image" .Values.agent.image -}}
{{- end -}}
{{- $_ := set $agent "kubernetes" $kubernetes -}}
{{- toYaml (set (omit $given "base_url") "agent" $agent) -}}
{{- end -}}

{{- define "agent.baseUrl" -}}
{{- $given := include "agent.given" . | fromJson -}}
{{- $given.base_url | default .Values.baseUrl -}}
{{- end -}}

{{- /* Variables given as a map or as a list, as the list that a container wants. */ -}}
{{- define "agent.variables" -}}
{{- if kindIs "map" . -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end -}}
{{- else if . -}}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- /* What a run takes in its namespace; docs/kubernetes.md says what each is for. */ -}}
{{- define "agent.rules" -}}
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, delete, get, list, patch, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [delete, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, delete, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- range include "agent.kinds" . | fromJsonArray }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource }}]
  verbs: [create, delete, get, list, watch]
{{- end }}
{{- range include "agent.resources" (.Values.additionalServiceKinds | default list) | fromJsonArray }}
- apiGroups: [{{ .group | quote }}]
  resources: [{{ .resource }}]
  verbs: [create, get]
{{- end }}
{{- with .Values.rbac.extraRules }}
{{ toYaml . }}
{{- end }}
{{- end -}}
