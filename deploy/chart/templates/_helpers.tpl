{{- define "rebalancer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "rebalancer.fullname" -}}
{{- default (include "rebalancer.name" .) .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "rebalancer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "rebalancer.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "rebalancer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rebalancer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rebalancer.labels" -}}
{{ include "rebalancer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rebalancer.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end }}

{{/* What depends on the daemon's own settings, with its defaults where they are not given. */}}
{{- define "rebalancer.port" -}}
{{- dig "http" "port" 8080 .Values.settings | int }}
{{- end }}

{{- define "rebalancer.leaseName" -}}
{{- dig "lease" "name" "kubevirt-rebalancer" .Values.settings }}
{{- end }}

{{- define "rebalancer.leaseNamespace" -}}
{{- dig "lease" "namespace" "" .Values.settings | default .Release.Namespace }}
{{- end }}

{{/* The settings map as environment variables: nested keys are joined by "__", lists are JSON. Numbers of a values file
     are floats to Helm, and large ones would become 1e+06. */}}
{{- define "rebalancer.env" -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .settings }}
{{- $name := printf "%s%s" $prefix (upper $key) }}
{{- if kindIs "map" $value }}
{{- include "rebalancer.env" (dict "prefix" (printf "%s__" $name) "settings" $value) }}
{{- else }}
- name: {{ $name }}
  {{- if kindIs "slice" $value }}
  value: {{ toJson $value | quote }}
  {{- else if and (kindIs "float64" $value) (eq (floor $value) $value) }}
  value: {{ int64 $value | quote }}
  {{- else }}
  value: {{ toString $value | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
