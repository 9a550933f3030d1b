"""What kafka-python's errors mean, by type, never by a message's text.

The order of the table counts: the first row whose types fit decides. Whatever is in no row is taken for an outage:
a broker's error that is not ours may pass, and nothing is lost by waiting.
"""

from __future__ import annotations

from kafka import errors

from driftline.core.errors import Unavailable

# The group has given the member's partitions to others, or is about to.
LOST_MEMBERSHIP = (
    errors.CommitFailedError,
    errors.FencedInstanceIdError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
    errors.UnknownMemberIdError,
)
# Of one record: tried again, it is refused again.
TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
UNKNOWN_TOPIC = (errors.UnknownTopicOrPartitionError, errors.UnknownTopicIdError)

# Calls that no broker can ever answer: the fault is in this program, or in how it was installed.
_BUGS = (
    errors.IllegalArgumentError,
    errors.InvalidRequestError,
    errors.InvalidRequiredAcksError,
    errors.UnsupportedCodecError,
)
# Nothing gets through until somebody acts; the work waits meanwhile.
_ADVICE: tuple[tuple[tuple[type[errors.KafkaError], ...], str], ...] = (
    (
        (errors.TopicAuthorizationFailedError,),
        "grant kafka.sasl_username Read, Write, Describe and Create on topics that begin with kafka.topic_prefix, and "
        "Read and Describe on the topics of sources",
    ),
    ((errors.GroupAuthorizationFailedError,), "grant kafka.sasl_username Read on the service's consumer group"),
    (
        (errors.ClusterAuthorizationFailedError,),
        "grant kafka.sasl_username IdempotentWrite, and Create for new topics, on the cluster",
    ),
    ((errors.AuthorizationError,), "grant kafka.sasl_username what the brokers' authorizer logs as denied"),
    (
        (errors.SaslAuthenticationFailedError, errors.IllegalSaslStateError),
        "check kafka.sasl_username and what kafka.sasl_password_file holds",
    ),
    ((errors.UnsupportedSaslMechanismError,), "the brokers do not offer kafka.sasl_mechanism"),
    ((errors.SecurityDisabledError,), "the brokers have no authorizer: check kafka.security_protocol"),
    (
        (errors.InvalidSessionTimeoutError,),
        "kafka.session_timeout_ms has to lie between the brokers' group.min.session.timeout.ms and "
        "group.max.session.timeout.ms",
    ),
    ((errors.InvalidReplicationFactorError,), "kafka.replicas asks for more brokers than there are"),
    (
        (errors.UnsupportedVersionError, errors.UnsupportedForMessageFormatError, errors.UnrecognizedBrokerVersion),
        "the brokers are too old: Driftline needs Kafka 2.1 or later",
    ),
    ((errors.UnsupportedCompressionTypeError,), "the brokers do not take kafka.compression"),
    ((errors.PolicyViolationError, errors.InvalidConfigurationError), "the brokers' policy forbids it"),
)


def unavailable(error: Exception) -> Unavailable:
    """What to raise in place of an error of kafka-python. Raises the error itself where it is a bug."""
    if isinstance(error, _BUGS):
        raise error
    advice = next((text for types, text in _ADVICE if isinstance(error, types)), "")
    detail = f"{type(error).__name__}: {error}"
    return Unavailable("kafka", f"{detail}; {advice}" if advice else detail, 5.0 if advice else 1.0)
