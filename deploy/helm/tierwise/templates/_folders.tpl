{{/*
Folders that are brought to a pod: (dict "root" $ "names" (list "checkpoint" "knowledge")). One that is part of the image, or that
nobody wants, has nothing here. The service checks the hash of every file that it loads.
*/}}
{{- define "tierwise.volumes" -}}
{{- range .names }}
{{- $source := get $.root.Values . }}
{{- if eq $source.from "claim" }}
- name: {{ . }}
  persistentVolumeClaim: {claimName: {{ $source.claim.name | quote }}, readOnly: true}
{{- else if eq $source.from "image" }}
- name: {{ . }}
  image: {reference: {{ $source.image.reference | quote }}, pullPolicy: IfNotPresent}
{{- else if eq $source.from "pull" }}
- name: {{ . }}
  emptyDir: {sizeLimit: {{ $source.pull.sizeLimit }}}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Where a folder that is brought lies: (dict "root" $ "name" "checkpoint"). The volume is mounted whole, so that a link in it which
is pointed elsewhere is followed, and a candidate beside it can be read.
*/}}
{{- define "tierwise.folder" -}}
{{- $source := get .root.Values .name -}}
/var/lib/tierwise/{{ .name }}{{ with (get $source $source.from).path }}/{{ . }}{{ end }}
{{- end -}}

{{- define "tierwise.mounts" -}}
{{- range .names }}
{{- $source := get $.root.Values . }}
{{- if has $source.from (list "claim" "image" "pull") }}
- name: {{ . }}
  mountPath: /var/lib/tierwise/{{ . }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{/*
rclone copies from HTTP and from every object store; a prefix without objects is no error to it. An init container may run again
in the same pod, after a node has restarted, and then has nothing to copy.
*/}}
{{- define "tierwise.pulls" -}}
{{- range .names }}
{{- $source := get $.root.Values . }}
{{- if eq $source.from "pull" }}
- name: pull-{{ . }}
  image: {{ $source.pull.image | quote }}
  command:
    - sh
    - -ec
    - |
      rclone copy "$1" /target --retries 5
      ls -A /target | grep -q . || { echo "nothing was found at the source" >&2; exit 1; }
    - pull
    - {{ $source.pull.source | quote }}
  env:
    - {name: HOME, value: /tmp}
  {{- with $source.pull.secret }}
  envFrom:
    - secretRef: {name: {{ . | quote }}}
  {{- end }}
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {memory: 256Mi}
  securityContext: {{- include "tierwise.containerSecurity" $.root | nindent 4 }}
  volumeMounts:
    - {name: {{ . }}, mountPath: /target}
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}
{{- end -}}
