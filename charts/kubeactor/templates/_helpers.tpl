{{/* The label app.kubernetes.io/name is `kubeactor` whatever the release is called, so that one selector finds all operators. */}}

{{/* At most 63 characters and always a letter first, since a Service is called so: a release name has at most 53. */}}
{{- define "kubeactor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- hasPrefix "kubeactor" $release | ternary $release (printf "kubeactor-%s" $release) -}}
{{- end -}}
{{- end }}

{{- define "kubeactor.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "kubeactor.fullname" .) "default") -}}
{{- end }}

{{- define "kubeactor.selectorLabels" -}}
app.kubernetes.io/name: kubeactor
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "kubeactor.labels" -}}
{{ include "kubeactor.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* kubeactor.image: (dict "image" .Values.image "root" $) */}}
{{- define "kubeactor.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* Where `helm test` works: in the release's namespace when that is served, else in the first one that is. */}}
{{- define "kubeactor.testNamespace" -}}
{{- $served := .Values.watch.namespaces -}}
{{- or (empty $served) (has .Release.Namespace $served) | ternary .Release.Namespace (first $served) -}}
{{- end }}

{{/* An ActorNamespace has at most 40 characters. */}}
{{- define "kubeactor.testName" -}}
{{ include "kubeactor.fullname" . | trunc 35 | trimSuffix "-" }}-test
{{- end }}

{{/* What `restricted` pod security asks of a pod and of a container. */}}
{{- define "kubeactor.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kubeactor.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
