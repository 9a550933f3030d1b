from __future__ import annotations

import inspect

import pytest
from kafka import errors

from driftline.adapters.kafka_errors import unavailable

EVERY = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.KafkaError)
]  # fmt: skip


def test_whatever_may_pass_is_an_outage() -> None:
    for kind in EVERY:
        if kind.retriable:
            found = unavailable(kind("gone"))
            assert (found.dependency, found.retry_after_seconds) == ("kafka", 1.0), kind
            assert kind.__name__ in found.detail


@pytest.mark.parametrize(
    "kind, advice",
    [
        (errors.TopicAuthorizationFailedError, "kafka.topic_prefix"),
        (errors.GroupAuthorizationFailedError, "consumer group"),
        (errors.ClusterAuthorizationFailedError, "IdempotentWrite"),
        (errors.TransactionalIdAuthorizationFailedError, "grant"),
        (errors.SaslAuthenticationFailedError, "kafka.sasl_password_file"),
        (errors.InvalidSessionTimeoutError, "group.max.session.timeout.ms"),
        (errors.IncompatibleBrokerVersion, "too old"),
        (errors.InvalidReplicationFactorError, "kafka.replicas"),
    ],
)
def test_what_somebody_has_to_mend_says_what_to_do(kind: type[errors.KafkaError], advice: str) -> None:
    found = unavailable(kind("no"))
    assert advice in found.detail
    assert found.retry_after_seconds == 5.0


@pytest.mark.parametrize(
    "kind", [errors.IllegalArgumentError, errors.InvalidRequestError, errors.UnsupportedCodecError]
)
def test_a_bug_flies(kind: type[errors.KafkaError]) -> None:
    with pytest.raises(kind):
        unavailable(kind("ours"))
