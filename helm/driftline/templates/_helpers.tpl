{{- define "driftline.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else }}{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" }}{{ end }}{{ end }}
{{- end }}

{{/* What selects the pods of a component. Never changes between versions: selectors are immutable. */}}
{{- define "driftline.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "driftline.labels" -}}
{{ include "driftline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: driftline
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "driftline.serviceAccount" -}}
{{- if .root.Values.serviceAccount.create }}{{ include "driftline.fullname" .root }}-{{ .name }}
{{- else }}{{ default "default" .root.Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "driftline.repository" -}}
{{ required "image.repository is not set, and no images are published: build and push yours with `make images REPOSITORY=registry.example.com/search/driftline`, then --set image.repository=registry.example.com/search/driftline" .Values.image.repository }}
{{- end }}

{{- define "driftline.image" -}}
{{ include "driftline.repository" .root }}-{{ .name }}:{{ default .root.Chart.AppVersion .root.Values.image.tag }}
{{- end }}

{{/* Service -> host in the Ingress, of the enabled services that have one. */}}
{{- define "driftline.hosts" -}}
{{- range $name, $host := .Values.ingress.hosts }}
{{- if and $host (index $.Values $name).enabled }}
{{ $name }}: {{ $host | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The settings file of a service: the release's addresses, `config`, then the service's own `config`. */}}
{{- define "driftline.config" -}}
{{- $full := include "driftline.fullname" .root }}
{{- $given := dict }}
{{- if .root.Values.redis.enabled }}{{ $_ := set $given "redis" (dict "url" (printf "redis://%s-redis:6379/0" $full)) }}{{ end }}
{{- if .root.Values.triton.enabled }}{{ $_ := set $given "triton" (dict "url" (printf "%s-triton:8001" $full)) }}{{ end }}
{{- if .root.Values.strimzi.enabled }}{{ $_ := set $given "kafka" (dict "bootstrap_servers" (printf "%s-kafka-bootstrap:9092" $full)) }}{{ end }}
{{- if .root.Values.milvus.enabled }}{{ $_ := set $given "milvus" (dict "uri" (printf "http://%s-milvus:19530" $full)) }}{{ end }}
{{- /* The Service of this Triton is headless, so a request to unload reaches all of its pods. */}}
{{- if and (eq .name "upgrade") .root.Values.triton.enabled }}{{ $_ := set $given "upgrade" (dict "unload_after_seconds" 60) }}{{ end }}
{{- $listen := dict "telemetry" (dict "metrics_host" "0.0.0.0" "metrics_port" 8080) "http" (dict "host" "0.0.0.0" "port" 8080 "grpc_port" (ternary 9090 0 (has .name (list "ingest" "query")))) }}
{{- $own := index .root.Values .name }}
{{- toYaml (mergeOverwrite (deepCopy .root.Values.config) $given $listen (deepCopy (default dict $own.config))) }}
{{- end }}

{{/* Settings that name mounted files, and what the user adds. */}}
{{- define "driftline.env" -}}
- name: DRIFTLINE_CONFIG
  value: /etc/driftline/config/driftline.yaml
- name: TOKENIZERS_PARALLELISM
  value: "false"
- name: OMP_NUM_THREADS
  value: "1"
{{- if .root.Values.auth.enabled }}
- name: DRIFTLINE_AUTH__KEYS_FILE
  value: /etc/driftline/secrets/auth/keys
{{- else }}
- name: DRIFTLINE_AUTH__MODE
  value: "off"
{{- end }}
{{- with .root.Values.secrets }}
{{- if .kafka.existingSecret }}
- name: DRIFTLINE_KAFKA__SASL_PASSWORD_FILE
  value: /etc/driftline/secrets/kafka/password
{{- end }}
{{- if .kafkaCa.existingSecret }}
- name: DRIFTLINE_KAFKA__SSL_CAFILE
  value: /etc/driftline/secrets/kafka-ca/ca.crt
{{- end }}
{{- if .milvus.existingSecret }}
- name: DRIFTLINE_MILVUS__TOKEN_FILE
  value: /etc/driftline/secrets/milvus/token
{{- end }}
{{- if .redis.existingSecret }}
- name: DRIFTLINE_REDIS__PASSWORD_FILE
  value: /etc/driftline/secrets/redis/password
{{- end }}
{{- end }}
{{- if and (eq .name "ingest") .root.Values.ingest.sources }}
- name: DRIFTLINE_INGEST__SOURCES_FILE
  value: /etc/driftline/config/sources.yaml
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with (index .root.Values .name).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "driftline.mounts" -}}
- {name: config, mountPath: /etc/driftline/config, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .root.Values.auth.enabled }}
- {name: auth, mountPath: /etc/driftline/secrets/auth, readOnly: true}
{{- end }}
{{- with .root.Values.secrets }}
{{- if .kafka.existingSecret }}
- {name: kafka, mountPath: /etc/driftline/secrets/kafka, readOnly: true}
{{- end }}
{{- if .kafkaCa.existingSecret }}
- {name: kafka-ca, mountPath: /etc/driftline/secrets/kafka-ca, readOnly: true}
{{- end }}
{{- if .milvus.existingSecret }}
- {name: milvus, mountPath: /etc/driftline/secrets/milvus, readOnly: true}
{{- end }}
{{- if .redis.existingSecret }}
- {name: redis, mountPath: /etc/driftline/secrets/redis, readOnly: true}
{{- end }}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "driftline.volumes" -}}
- name: config
  configMap:
    name: {{ include "driftline.fullname" .root }}-{{ .name }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- if .root.Values.auth.enabled }}
- name: auth
  secret:
    secretName: {{ .root.Values.auth.existingSecret }}
    items: [{key: {{ .root.Values.auth.secretKey }}, path: keys}]
{{- end }}
{{- with .root.Values.secrets }}
{{- if .kafka.existingSecret }}
- name: kafka
  secret:
    secretName: {{ .kafka.existingSecret }}
    items: [{key: {{ .kafka.secretKey }}, path: password}]
{{- end }}
{{- if .kafkaCa.existingSecret }}
- name: kafka-ca
  secret:
    secretName: {{ .kafkaCa.existingSecret }}
    items: [{key: {{ .kafkaCa.secretKey }}, path: ca.crt}]
{{- end }}
{{- if .milvus.existingSecret }}
- name: milvus
  secret:
    secretName: {{ .milvus.existingSecret }}
    items: [{key: {{ .milvus.secretKey }}, path: token}]
{{- end }}
{{- if .redis.existingSecret }}
- name: redis
  secret:
    secretName: {{ .redis.existingSecret }}
    items: [{key: {{ .redis.secretKey }}, path: password}]
{{- end }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "driftline.pod" -}}
serviceAccountName: {{ include "driftline.serviceAccount" . }}
automountServiceAccountToken: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- $own := index .root.Values .name }}
{{- with (mergeOverwrite (deepCopy .root.Values.nodeSelector) (deepCopy (default dict $own.nodeSelector))) }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with (concat .root.Values.tolerations (default list $own.tolerations)) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "driftline.spread" -}}
{{- $top := . }}
{{- range .root.Values.topologySpread.keys }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: {{ $top.root.Values.topologySpread.whenUnsatisfiable }}
  labelSelector:
    matchLabels: {{- include "driftline.selector" $top | nindent 6 }}
{{- end }}
{{- end }}
