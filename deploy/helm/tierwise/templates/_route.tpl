{{/* What both kinds of route share: (dict "root" $ "route" values "port" of the Service "matches" YAML). */}}
{{- define "tierwise.route" -}}
metadata:
  name: {{ include "tierwise.fullname" .root }}
  labels: {{- include "tierwise.labels" .root | nindent 4 }}
spec:
  parentRefs: {{- toYaml .route.parentRefs | nindent 4 }}
  {{- with .route.hostnames }}
  hostnames: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches: {{- .matches | nindent 8 }}
      backendRefs:
        - name: {{ include "tierwise.fullname" .root }}
          port: {{ .port }}
          weight: {{ sub 100 .route.canary.weight }}
        {{- if .route.canary.service }}
        - name: {{ .route.canary.service }}
          port: {{ .route.canary.port }}
          weight: {{ .route.canary.weight }}
        {{- end }}
{{- end -}}
