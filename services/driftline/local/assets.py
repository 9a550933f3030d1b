"""Files that ship with Driftline: in the wheel under `local/assets`, in a checkout under `deploy/`."""

from __future__ import annotations

from pathlib import Path

_PACKAGED = Path(__file__).parent / "assets"
_CHECKOUT = Path(__file__).resolve().parents[3] / "deploy"
_PLACES = {
    "encoder": ("encoder", "triton/encoder"),
    "triton-requirements.lock": ("triton-requirements.lock", "triton/requirements.lock"),
    "kafka-pom.xml": ("kafka-pom.xml", "kafka/pom.xml"),
    "recording.rules.yaml": ("recording.rules.yaml", "prometheus/recording.rules.yaml"),
    "alerts.rules.yaml": ("alerts.rules.yaml", "prometheus/alerts.rules.yaml"),
}


def asset(name: str) -> Path:
    """Path of a shipped file or folder. Raises FileNotFoundError."""
    packaged, checkout = _PLACES[name]
    for path in (_PACKAGED / packaged, _CHECKOUT / checkout):
        if path.exists():
            return path
    raise FileNotFoundError(f"Driftline's file {name} is missing from this installation")
