{{/*
A vLLM server of the checkpoint: (dict "root" $ "host" address to listen on). The arguments are those with which one item's score
depends neither on its neighbours in the batch nor on the checkpoint's sampling defaults.
*/}}
{{- define "tierwise.vllm" -}}
{{- $servers := .root.Values.engine.servers -}}
- name: vllm
  image: {{ $servers.image | quote }}
  command: [vllm, serve, {{ include "tierwise.folder" (dict "root" .root "name" "checkpoint") | quote }}]
  args:
    - --host={{ .host }}
    - --port=8000
    - --generation-config=vllm
    - --scheduling-policy=priority
    - --enable-prefix-caching
    - --enable-prompt-tokens-details
    - --disable-uvicorn-access-log
    {{- range $servers.args }}
    - {{ . | quote }}
    {{- end }}
  env: # without a home and a name of its own, torch finds no place for what it compiles
    - {name: HOME, value: /tmp}
    - {name: USER, value: vllm}
    - {name: VLLM_NO_USAGE_STATS, value: "1"}
  ports:
    - {name: vllm, containerPort: 8000}
  {{- if eq .host "127.0.0.1" }}
  # Nothing outside the pod reaches it; the service beside it watches it and is ready when it is.
  {{- else }}
  startupProbe: # loading and compiling a large checkpoint takes minutes
    httpGet: {path: /health, port: vllm}
    periodSeconds: 5
    failureThreshold: 180
  livenessProbe:
    httpGet: {path: /health, port: vllm}
    periodSeconds: 10
    timeoutSeconds: 5
  readinessProbe:
    httpGet: {path: /health, port: vllm}
    periodSeconds: 5
    timeoutSeconds: 5
  {{- end }}
  resources: {{- toYaml $servers.resources | nindent 4 }}
  securityContext: {{- include "tierwise.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: shm, mountPath: /dev/shm}
    {{- include "tierwise.mounts" (dict "root" .root "names" (list "checkpoint")) | nindent 4 }}
{{- end -}}
