"""Settings of access and of TLS."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 # pydantic reads the annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class AccessSettings(BaseModel):
    """Where the keys are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys_file: Path | None = Field(default=None, description="YAML file with keys and certificates, followed")
    keys: SecretStr | None = Field(default=None, description="the content of such a file instead")
    open: bool = Field(default=False, description="where there are no keys, serve other machines all the same")
    refresh_seconds: float = Field(default=5.0, gt=0, description="pause between looks for new keys and certificates")

    @model_validator(mode="after")
    def _check_one_source(self) -> AccessSettings:
        if self.keys_file is not None and self.keys is not None:
            raise ValueError("give keys_file or keys, not both")
        return self


class TlsSettings(BaseModel):
    """TLS of the doors for callers; plain text when no certificate is set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path | None = Field(default=None, description="PEM file with the certificate and its chain, followed")
    key: Path | None = Field(default=None, description="PEM file with its private key, followed")
    client_ca: Path | None = Field(default=None, description="PEM file with who signs clients' certificates")
    client_required: bool = Field(
        default=True, description="with client_ca: refuse who shows none; gRPC asks only if so"
    )

    @model_validator(mode="after")
    def _check_whole(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give certificate and key, or neither")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and key")
        return self
