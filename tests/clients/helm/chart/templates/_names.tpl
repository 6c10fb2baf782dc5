{{- define "greeter.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "greeter.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
component: web
{{- end }}

{{- define "greeter.batch" -}}
restartPolicy: Never
containers:
  - name: batch
    image: {{ .image }}
    args: [{{ .argument | quote }}]
{{- end }}
