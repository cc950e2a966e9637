{{/* The `restricted` Pod Security standard. */}}
{{- define "tierwise.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tierwise.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A folder that is brought to the pod: (dict "name" "knowledge" "source" .Values.knowledge). */}}
{{- define "tierwise.volume" -}}
- name: {{ .name }}
  {{- if eq .source.from "claim" }}
  persistentVolumeClaim: {claimName: {{ .source.claim.name | quote }}, readOnly: true}
  {{- else if eq .source.from "image" }}
  image: {reference: {{ .source.image.reference | quote }}, pullPolicy: IfNotPresent}
  {{- else }}
  emptyDir: {sizeLimit: {{ .source.pull.sizeLimit }}}
  {{- end }}
{{- end -}}

{{- define "tierwise.mount" -}}
- name: {{ .name }}
  mountPath: /var/lib/tierwise/{{ .name }}
  readOnly: true
  {{- with (get .source .source.from).path }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end -}}

{{/* rclone copies from HTTP and from every object store; the service checks every file's hash when it loads. */}}
{{- define "tierwise.pull" -}}
- name: pull-{{ .name }}
  image: {{ .source.pull.image | quote }}
  args: [copy, {{ .source.pull.source | quote }}, /target, --retries, "5", --error-on-no-transfer]
  env:
    - {name: HOME, value: /tmp}
  {{- with .source.pull.secret }}
  envFrom:
    - secretRef: {name: {{ . | quote }}}
  {{- end }}
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 256Mi}
  securityContext: {{- include "tierwise.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: {{ .name }}, mountPath: /target}
    - {name: tmp, mountPath: /tmp}
{{- end -}}
