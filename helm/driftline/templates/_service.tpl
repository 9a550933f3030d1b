{{/* Deployment of one service. Arguments: root, name. */}}
{{- define "driftline.deployment" -}}
{{- $own := index .root.Values .name }}
{{- $api := has .name (list "ingest" "query" "upgrade") }}
{{- $scaled := dig "autoscaling" "enabled" false $own }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "driftline.fullname" .root }}-{{ .name }}
  labels: {{- include "driftline.labels" . | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ $own.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels: {{- include "driftline.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    {{- if $api }}
    rollingUpdate: {maxSurge: 25%, maxUnavailable: 0}
    {{- else }}
    # A consumer more would only be one more rebalance.
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
    {{- end }}
  template:
    metadata:
      labels:
        {{- include "driftline.labels" . | nindent 8 }}
        {{- with .root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ include "driftline.configmap" . | sha256sum }}
        {{- if .root.Values.metrics.annotations }}
        prometheus.io/scrape: "true"
        prometheus.io/port: "8080"
        prometheus.io/path: /metrics
        {{- end }}
        {{- with .root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "driftline.pod" . | nindent 6 }}
      terminationGracePeriodSeconds: {{ $own.terminationGracePeriodSeconds }}
      {{- with include "driftline.spread" . }}
      topologySpreadConstraints: {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "driftline.image" . }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          ports:
            - {name: http, containerPort: 8080}
            {{- if has .name (list "ingest" "query") }}
            - {name: grpc, containerPort: 9090}
            {{- end }}
          env: {{- include "driftline.env" . | nindent 12 }}
          {{- with .root.Values.extraEnvFrom }}
          envFrom: {{- toYaml . | nindent 12 }}
          {{- end }}
          # A service waits for Kafka before it listens: five minutes until it is given up.
          startupProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 5
            failureThreshold: 60
          # Is the loop still turning? Says nothing of dependencies: a restart would not mend them.
          livenessProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 3
          {{- if $api }}
          # Until the endpoints have forgotten the pod; then SIGTERM drains.
          lifecycle:
            preStop:
              sleep: {seconds: 5}
          {{- end }}
          resources: {{- toYaml $own.resources | nindent 12 }}
          securityContext: {{- toYaml .root.Values.securityContext | nindent 12 }}
          volumeMounts: {{- include "driftline.mounts" . | nindent 12 }}
      volumes: {{- include "driftline.volumes" . | nindent 8 }}
{{- end }}

{{- define "driftline.configmap" -}}
driftline.yaml: |
  {{- include "driftline.config" . | nindent 2 }}
{{- if and (eq .name "ingest") .root.Values.ingest.sources }}
sources.yaml: |
  {{- .root.Values.ingest.sources | nindent 2 }}
{{- end }}
{{- end }}

{{/* KEDA on the lag of a consumer group, with the service's own way into Kafka. Arguments: root, name, topic, group. */}}
{{- define "driftline.lagscaler" -}}
{{- $own := index .root.Values .name }}
{{- $secrets := .root.Values.secrets }}
{{- $full := printf "%s-%s" (include "driftline.fullname" .root) .name }}
{{- $labels := include "driftline.labels" . }}
{{- $config := include "driftline.config" . | fromYaml }}
{{- $partitions := int (dig "kafka" "partitions" 8 $config) }}
{{- if gt (int $own.autoscaling.maxReplicas) $partitions }}
{{- fail (printf "%s.autoscaling.maxReplicas is %d, but config.kafka.partitions is %d: a consumer more than partitions has nothing to do" .name (int $own.autoscaling.maxReplicas) $partitions) }}
{{- end }}
{{- $protocol := dig "kafka" "security_protocol" "PLAINTEXT" $config }}
{{- $tls := has $protocol (list "SSL" "SASL_SSL") }}
{{- $sasl := hasPrefix "SASL" $protocol }}
{{- $ca := and $tls $secrets.kafkaCa.existingSecret }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $full }}
  labels: {{- $labels | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ $full }}
  minReplicaCount: {{ $own.autoscaling.minReplicas }}
  maxReplicaCount: {{ $own.autoscaling.maxReplicas }}
  cooldownPeriod: {{ $own.autoscaling.cooldownSeconds }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        # Every change of the members is a rebalance: down slowly, up by what the lag asks for.
        scaleDown:
          stabilizationWindowSeconds: {{ $own.autoscaling.cooldownSeconds }}
          policies: [{type: Pods, value: 1, periodSeconds: 120}]
        scaleUp:
          stabilizationWindowSeconds: 30
          policies: [{type: Percent, value: 100, periodSeconds: 60}]
  triggers:
    - type: kafka
      metadata:
        bootstrapServers: {{ dig "kafka" "bootstrap_servers" "" $config | quote }}
        consumerGroup: {{ dig .name "group" .group $config }}
        topic: {{ dig "kafka" "topic_prefix" "driftline." $config }}{{ .topic }}
        lagThreshold: {{ $own.autoscaling.lagThreshold | quote }}
        offsetResetPolicy: earliest
        allowIdleConsumers: "false"
        limitToPartitionsWithLag: "true"
        {{- if $tls }}
        tls: enable
        {{- end }}
        {{- if $sasl }}
        sasl: {{ dig "kafka" "sasl_mechanism" "PLAIN" $config | lower | replace "scram-sha-" "scram_sha" | replace "plain" "plaintext" }}
        {{- end }}
      {{- if or $sasl $ca }}
      authenticationRef:
        name: {{ $full }}
      {{- end }}
{{- if or $sasl $ca }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  name: {{ $full }}
  labels: {{- $labels | nindent 4 }}
spec:
  {{- if $sasl }}
  # KEDA takes the user's name only from a reference; the setting has it already.
  configMapTargetRef:
    - {parameter: username, name: {{ $full }}-keda, key: username}
  {{- end }}
  secretTargetRef:
    {{- if $sasl }}
    - {parameter: password, name: {{ required "secrets.kafka.existingSecret is needed with SASL" $secrets.kafka.existingSecret }}, key: {{ $secrets.kafka.secretKey }}}
    {{- end }}
    {{- if $ca }}
    - {parameter: ca, name: {{ $secrets.kafkaCa.existingSecret }}, key: {{ $secrets.kafkaCa.secretKey }}}
    {{- end }}
{{- end }}
{{- if $sasl }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $full }}-keda
  labels: {{- $labels | nindent 4 }}
data:
  username: {{ required "config.kafka.sasl_username is needed with SASL" (dig "kafka" "sasl_username" "" $config) | quote }}
{{- end }}
{{- end }}
