"""Kubeflow Trainer's status server over TLS, with the answers that Trainer 2.3 gave on a cluster."""

import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/job/status"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def problem(status: Any) -> str:
    """The server's words about a status that it does not take, status 422; "" for one that it takes."""
    whole = {"progressPercentage": 100, "estimatedRemainingSeconds": 2**31 - 1}
    for name, most in whole.items():
        value = status.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value > 2**31 - 1:
            return "Invalid payload"
        if not 0 <= value <= most:
            return f"{name}: invalid value"
    metrics = status.get("metrics", [])
    if any(not isinstance(metric.get(key), str) for metric in metrics for key in ("name", "value")):
        return "Invalid payload"
    if len(metrics) > 256 or any(not 0 < len(metric[key]) <= 64 for metric in metrics for key in ("name", "value")):
        return "metrics: invalid value"
    if "lastUpdatedTime" not in status:
        return "lastUpdatedTime: required value"
    return "" if RFC3339.fullmatch(str(status["lastUpdatedTime"])) else "Invalid payload"


class Server:
    """The server.

    Attributes:
        posts: what it took, in order.
        refused: its words about what it did not take.
        delay: seconds until it answers.
        code: status with which it answers all; None for its own.
    """

    def __init__(self, folder: Path) -> None:
        """Make a certificate and a token in a folder, and serve."""
        self.posts: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.delay, self.code = 0.0, None
        self.token = folder / "token"
        self.token.write_text("first\n")
        self.ca, key = folder / "ca.crt", folder / "key.pem"
        write_certificate(self.ca, key)
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                time.sleep(double.delay)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code, words = double.code or 200, "Payload too large" if double.code == 413 else "Forbidden"
                if self.path != PATH:
                    code = 404
                elif self.headers["Authorization"] != f"Bearer {double.token.read_text().strip()}":
                    code = 403
                elif len(body) > 65_536:
                    code = 413
                elif code == 200:
                    status = json.loads(body)["trainerStatus"]
                    words = problem(status)
                    code = 422 if words else 200
                if code == 200:
                    double.posts.append(status)
                else:
                    double.refused.append(f"{code} {words}")
                failure = {"metadata": {}, "status": "Failure", "message": words, "code": code}
                answer = body if code == 200 else json.dumps(failure).encode()
                with contextlib.suppress(OSError):  # the client has left
                    self.send_response(code)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.ca, key)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the controller sets in every pod."""
        return {
            "KUBEFLOW_TRAINER_SERVER_URL": f"https://localhost:{self.server.server_address[1]}{PATH}",
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(self.ca),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(self.token),
        }


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Run the server within the block."""
    double = Server(folder)
    try:
        yield double
    finally:
        double.server.shutdown()
        double.server.server_close()


def write_certificate(path: Path, key_path: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_path.write_bytes(key.private_bytes(*encoding))
