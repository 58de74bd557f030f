"""An authority, what it issues, who is let in by TLS with it, and whose report is believed."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given
from hypothesis import strategies as st

from baffle import certificates
from baffle.certificates import REPORT, SIGNING, SLACK, Pair, Signer, verified
from baffle.errors import ReportError, SettingsError

NOW = datetime(2030, 6, 15, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
LATER = NOW + timedelta(days=366)

CA = certificates.authority("Ours", 3650, NOW)
FOREIGN = certificates.authority("Ours", 3650, NOW)
SERVER = certificates.server(CA, ["fed.example.org", "10.0.0.7", "::1"], 365, NOW)
CLIENT = certificates.client(CA, 3, 365, NOW)
SIGN = certificates.signing(CA, 3, 365, NOW)
SIGNATURE = Signer.read(SIGN.key).sign(b"report")


def parsed(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def extension(pair: Pair, kind):
    return parsed(pair).extensions.get_extension_for_class(kind).value


def common_name(pair: Pair) -> str:
    (name,) = parsed(pair).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return name.value


def rekeyed(pair: Pair, key, purposes, name="client-3", ends=NOW + 300 * DAY) -> bytes:
    """Return a certificate that the authority signed by hand, not by this library."""
    secret = serialization.load_pem_private_key(pair.key, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(parsed(pair).subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - DAY)
        .not_valid_after(ends)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(secret, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# What is in them.


@pytest.mark.parametrize("pair", [CA, SERVER, CLIENT, SIGN], ids=["ca", "server", "client", "sign"])
def test_a_pair_belongs_together_and_its_secret_is_not_shown(pair) -> None:
    key = serialization.load_pem_private_key(pair.key, None)
    assert key.public_key() == parsed(pair).public_key()
    assert pair.key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert "PRIVATE" not in repr(pair)


@pytest.mark.parametrize("pair", [SERVER, CLIENT, SIGN, CA], ids=["server", "client", "sign", "ca"])
def test_days_are_counted_from_now_with_slack_for_late_clocks(pair) -> None:
    found = parsed(pair)
    assert found.not_valid_before_utc == NOW - SLACK
    assert found.not_valid_after_utc == NOW + (3650 if pair is CA else 365) * DAY


def test_the_authority_issues_and_does_nothing_else() -> None:
    assert [certificates.about(pair.certificate, NOW).issues for pair in (CA, SERVER, CLIENT)] == [True, False, False]
    assert extension(CA, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    usage = extension(CA, x509.KeyUsage)
    assert usage.key_cert_sign
    assert not usage.digital_signature
    assert common_name(CA) == "Ours"
    assert isinstance(parsed(CA).public_key().curve, ec.SECP256R1)


@pytest.mark.parametrize(
    ("pair", "name", "purposes"),
    [
        (SERVER, "server", {certificates.SERVES, certificates.CONNECTS}),
        (CLIENT, "client-3", {certificates.CONNECTS}),
        (SIGN, "client-3", {SIGNING}),
    ],
    ids=["server", "client", "sign"],
)
def test_what_is_issued_has_one_purpose_and_can_not_issue(pair, name, purposes) -> None:
    assert common_name(pair) == name
    assert set(extension(pair, x509.ExtendedKeyUsage)) == purposes
    assert extension(pair, x509.BasicConstraints).ca is False
    assert extension(pair, x509.KeyUsage).digital_signature
    assert not extension(pair, x509.KeyUsage).key_cert_sign
    assert certificates.issued(pair.certificate, CA.certificate)
    assert not certificates.issued(pair.certificate, FOREIGN.certificate)


def test_addresses_are_names_or_ip_addresses_each_once() -> None:
    names = extension(SERVER, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.7"), ip_address("::1")]
    twice = extension(certificates.server(CA, ["A.b", "A.b"], 1, NOW), x509.SubjectAlternativeName)
    assert list(twice) == [x509.DNSName("a.b")]


def test_no_two_are_alike() -> None:
    pairs = [certificates.client(CA, 1, 5, NOW) for _ in range(4)]
    assert len({pair.key for pair in pairs}) == len({parsed(pair).serial_number for pair in pairs}) == 4


@given(st.integers(0, (1 << 63) - 1))
def test_any_number_comes_back(number) -> None:
    pair = certificates.signing(CA, number, 1, NOW)
    signature = Signer.read(pair.key).sign(b"")
    assert verified(pair.certificate, CA.certificate, b"", signature, NOW) == number
    assert certificates.about(pair.certificate, NOW).purpose == f"client {number}, signs its reports"


def test_time_zones_and_fractions_of_seconds_do_not_matter() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=-9))).replace(microsecond=999_999)
    pair = certificates.client(CA, 3, 365, there)
    assert parsed(pair).not_valid_after_utc == parsed(CLIENT).not_valid_after_utc


# What is refused when they are made.


@pytest.mark.parametrize(
    "address",
    ["", " ", "a b", "host:7447", "tcp/host", "https://host", "-a", "a-", "a..b", ".a", "a.", "*.a", "a_b", "ü.org",
     "256.1.1.1", "1.2.3", "10.0.0.0/8", "fe80::1%eth0", "[::1]", "a" * 64, ".".join(["a" * 49] * 6), "a\n", "a\0"],
)  # fmt: skip
def test_an_address_that_no_client_can_dial(address) -> None:
    with pytest.raises(SettingsError) as told:
        certificates.server(CA, ["good.org", address], 5, NOW)
    assert (told.value.field, told.value.value) == ("address", address)


@pytest.mark.parametrize("address", ["localhost", "a", "a-b.c", "xn--tda.org", "3com.com", "fe80::1", "127.0.0.1"])
def test_an_address_that_a_client_can_dial(address) -> None:
    certificates.server(CA, [address], 5, NOW)


def test_no_address() -> None:
    with pytest.raises(SettingsError, match="one or more"):
        certificates.server(CA, [], 5, NOW)


@pytest.mark.parametrize("number", [-1, -(10**30), 1 << 63])
@pytest.mark.parametrize("make", [certificates.client, certificates.signing])
def test_a_number_out_of_range(make, number) -> None:
    with pytest.raises(SettingsError, match=r"^number = .*between 0 and"):
        make(CA, number, 5, NOW)


@pytest.mark.parametrize("days", [0, -1, 36_501, 10**12])
def test_days_out_of_range(days) -> None:
    for make in (
        lambda: certificates.authority("Ours", days, NOW),
        lambda: certificates.server(CA, ["a"], days, NOW),
        lambda: certificates.client(CA, 0, days, NOW),
        lambda: certificates.signing(CA, 0, days, NOW),
    ):
        with pytest.raises(SettingsError, match=r"^days = .*between 1 and 36500"):
            make()


def test_nothing_outlives_its_authority() -> None:
    certificates.client(CA, 0, 3650, NOW)
    for now, days, most in ((NOW, 3651, 3650), (NOW + DAY, 3650, 3649), (NOW + 3649.5 * DAY, 1, 0)):
        with pytest.raises(SettingsError, match=f"lasts until 2040-06-12 12:30 UTC: at most {most},"):
            certificates.client(CA, 0, days, now)


@pytest.mark.parametrize("name", ["", " ", " a", "a\n", "\x1b[2J", "a" * 65])
def test_a_name_that_is_none(name) -> None:
    with pytest.raises(SettingsError, match="1 to 64 printable"):
        certificates.authority(name, 5, NOW)


@pytest.mark.parametrize(
    ("pair", "now", "rule"),
    [
        (CA, NOW + 3651 * DAY, "expired on 2040-06-12"),
        (CA, NOW - 2 * DAY, "is a clock wrong?"),
        (CLIENT, NOW, "is not an authority"),
        (Pair(CA.certificate, FOREIGN.key), NOW, "another key"),
        (Pair(CA.certificate, SIGN.key), NOW, "another key"),
        (Pair(CA.certificate, b"x"), NOW, "is not a private key"),
        (Pair(CA.certificate, CA.certificate), NOW, "is not a private key"),
        (Pair(b"", CA.key), NOW, "is not a certificate"),
        (Pair(CA.key, CA.key), NOW, "is not a certificate"),
        (Pair(CA.certificate + b" " * 20_000, CA.key), NOW, "is larger than"),
        (Pair(rekeyed(CA, Ed25519PrivateKey.generate(), []), CA.key), NOW, "not an authority's"),
    ],
)
def test_an_authority_that_can_not_issue(pair, now, rule) -> None:
    with pytest.raises(SettingsError) as told:
        certificates.client(pair, 0, 5, now)
    assert told.value.field.startswith("ca")
    assert rule in told.value.rule


def test_an_encrypted_key_is_told_as_that() -> None:
    key = serialization.load_pem_private_key(CA.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    with pytest.raises(SettingsError, match="encrypted"):
        certificates.client(Pair(CA.certificate, locked), 0, 5, NOW)


# Who signed.


def test_a_report_that_a_client_signed() -> None:
    assert len(SIGNATURE) == 64
    assert verified(SIGN.certificate, CA.certificate, b"report", SIGNATURE, NOW) == 3
    assert Signer.read(SIGN.key).sign(b"report") == SIGNATURE
    assert "PRIVATE" not in repr(Signer.read(SIGN.key))


def test_what_is_signed_is_the_domain_and_the_message() -> None:
    assert REPORT == b"baffle-report-1\0"
    key = serialization.load_pem_private_key(SIGN.key, None)
    key.public_key().verify(SIGNATURE, b"baffle-report-1\0report")
    with pytest.raises(ReportError):
        verified(SIGN.certificate, CA.certificate, b"report", key.sign(b"report"), NOW)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_is_of_one_message(one, other) -> None:
    signature = Signer.read(SIGN.key).sign(one)
    assert verified(SIGN.certificate, CA.certificate, one, signature, NOW) == 3
    if one != other:
        with pytest.raises(ReportError, match="not client 3's of this message"):
            verified(SIGN.certificate, CA.certificate, other, signature, NOW)


@pytest.mark.parametrize(
    "signature",
    [b"", SIGNATURE[:-1], SIGNATURE + b"\0", bytes(64), b"\xff" * 64, bytes(10**6)],
    ids=["empty", "short", "long", "zeros", "ones", "huge"],
)
def test_a_signature_of_any_length(signature) -> None:
    with pytest.raises(ReportError, match="not client 3's of this message"):
        verified(SIGN.certificate, CA.certificate, b"report", signature, NOW)


def test_the_end_is_the_last_second() -> None:
    for now in (NOW - SLACK, NOW + 365 * DAY):
        assert verified(SIGN.certificate, CA.certificate, b"report", SIGNATURE, now) == 3


ED = Ed25519PrivateKey.generate()
EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.mark.parametrize(
    ("certificate", "now", "reason"),
    [
        (certificates.signing(FOREIGN, 3, 5, NOW).certificate, NOW, "another authority"),
        (FOREIGN.certificate, NOW, "another authority"),
        (SIGN.certificate, NOW + 365 * DAY + timedelta(seconds=1), "certificate expired on 2031-06-15 12:30 UTC"),
        (SIGN.certificate, NOW - SLACK - timedelta(seconds=1), "is a clock wrong?"),
        (SIGN.certificate, NOW + 3651 * DAY, "the authority expired"),
        (CLIENT.certificate, NOW, "of client-3 is not one under which a client signs"),
        (SERVER.certificate, NOW, "of server is not one under which a client signs"),
        (CA.certificate, NOW, "of Ours is not one under which a client signs"),
        (rekeyed(CA, ED, [SIGNING], "server"), NOW, "of server is not"),
        (rekeyed(CA, ED, [SIGNING], "client-03"), NOW, "of client-03 is not"),
        (rekeyed(CA, ED, [SIGNING], "client-"), NOW, "is not one"),
        (rekeyed(CA, ED, [SIGNING], "client--1"), NOW, "is not one"),
        (rekeyed(CA, ED, [SIGNING], "client-3\n"), NOW, r"'client-3\n' is not one"),
        (rekeyed(CA, ED, [SIGNING], "client-٣"), NOW, "is not one"),
        (rekeyed(CA, ED, [certificates.CONNECTS]), NOW, "is not one"),
        (rekeyed(CA, ED, []), NOW, "is not one"),
        (rekeyed(CA, EC, [SIGNING]), NOW, "is not one"),
        (rekeyed(CA, RSA, [SIGNING]), NOW, "is not one"),
        (rekeyed(Pair(SIGN.certificate, EC.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )), ED, [SIGNING]), NOW, "another authority"),
        (b"", NOW, "is not a certificate"),
        (b"\0" * 100, NOW, "is not a certificate"),
        (SIGN.key, NOW, "is not a certificate"),
        (SIGN.certificate[:-60], NOW, "is not a certificate"),
        (SIGN.certificate * 50, NOW, "is larger than 16384 bytes"),
    ],
)  # fmt: skip
def test_a_certificate_that_is_refused(certificate, now, reason) -> None:
    with pytest.raises(ReportError) as told:
        verified(certificate, CA.certificate, b"report", SIGNATURE, now)
    assert reason in str(told.value)


def test_another_client_can_not_sign_for_this_one() -> None:
    other = Signer.read(certificates.signing(CA, 4, 5, NOW).key).sign(b"report")
    with pytest.raises(ReportError, match="not client 3's"):
        verified(SIGN.certificate, CA.certificate, b"report", other, NOW)


def pem(der: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(der).encode()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_no_bit_of_a_certificate_that_means_anything_can_be_changed() -> None:
    """Outside of what is signed a few bits mean nothing (how many of a signature's last ones are unused)."""
    der = bytearray(parsed(SIGN).public_bytes(serialization.Encoding.DER))
    signed = parsed(SIGN).tbs_certificate_bytes
    for at in range(len(der) * 8):
        der[at // 8] ^= 1 << at % 8
        try:
            assert verified(pem(bytes(der)), CA.certificate, b"report", SIGNATURE, NOW) == 3
            assert x509.load_der_x509_certificate(bytes(der)).tbs_certificate_bytes == signed
        except ReportError:
            pass
        der[at // 8] ^= 1 << at % 8
    assert verified(pem(bytes(der)), CA.certificate, b"report", SIGNATURE, NOW) == 3


@given(st.binary(max_size=400), st.binary(max_size=100))
def test_whatever_comes_in_is_refused_in_words(certificate, signature) -> None:
    for given_ in (certificate, pem(certificate)):
        with pytest.raises(ReportError):
            verified(given_, CA.certificate, b"report", signature, NOW)


def test_an_authority_that_is_none_is_the_servers_own_error() -> None:
    for authority in (b"", SERVER.certificate):
        with pytest.raises(SettingsError, match=r"^ca = "):
            verified(SIGN.certificate, authority, b"report", SIGNATURE, NOW)


@pytest.mark.parametrize("key", [CLIENT.key, SIGN.certificate, b""])
def test_a_signer_has_an_ed25519_key(key) -> None:
    with pytest.raises(SettingsError, match="sign-key"):
        Signer.read(key)


# What they say.


@pytest.mark.parametrize(
    ("pair", "purpose", "issuer"),
    [
        (CA, "Ours, an authority: it issues the certificates of servers and clients", "itself"),
        (SERVER, "server, dialled at fed.example.org, 10.0.0.7, ::1", "Ours"),
        (CLIENT, "client 3, connects to servers", "Ours"),
        (SIGN, "client 3, signs its reports", "Ours"),
    ],
)
def test_in_words(pair, purpose, issuer) -> None:
    told = certificates.about(pair.certificate, NOW)
    assert (told.purpose, told.issuer, told.wrong) == (purpose, issuer, "")
    assert told.days == (3650 if pair is CA else 365)
    assert told.ends == parsed(pair).not_valid_after_utc


def test_days_left_are_whole_and_none_after_the_end() -> None:
    days = [certificates.about(CLIENT.certificate, NOW + d * DAY).days for d in (0.1, 363.9, 364, 364.1, 365, 400)]
    assert days == [364, 1, 1, 0, 0, 0]
    assert certificates.about(CLIENT.certificate, LATER).wrong == "expired on 2031-06-15 12:30 UTC"
    early = certificates.about(CLIENT.certificate, NOW - 9 * DAY).wrong
    assert early == "is not valid before 2030-06-14 12:30 UTC, and it is 2030-06-06 12:30 UTC: is a clock wrong?"


@pytest.mark.parametrize(
    ("certificate", "purpose"),
    [
        (rekeyed(CA, EC, [], "any one"), "any one"),
        (rekeyed(CA, RSA, [certificates.SERVES], "\x1b[2J"), r"'\x1b[2J'"),
    ],
)
def test_others_certificates_are_named_and_harmless(certificate, purpose) -> None:
    assert certificates.about(certificate, NOW).purpose == purpose


def test_the_fingerprint_is_the_beginning_of_the_digest_that_openssl_prints() -> None:
    digest = hashlib.sha256(parsed(CA).public_bytes(serialization.Encoding.DER)).hexdigest()
    assert certificates.fingerprint(CA.certificate).replace(" ", "") == digest[:16]
    assert certificates.fingerprint(FOREIGN.certificate) != certificates.fingerprint(CA.certificate)


@pytest.mark.parametrize("told", [lambda pem: certificates.about(pem, NOW), certificates.fingerprint])
def test_what_is_no_certificate_can_not_be_told(told) -> None:
    with pytest.raises(SettingsError, match="is not a certificate"):
        told(b"...")


def test_what_is_no_certificate_was_not_issued() -> None:
    assert not certificates.issued(b"...", CA.certificate)


# By the rules of the web (RFC 5280, as the library checks them).


def policy(root: Pair = CA, now: datetime = NOW) -> PolicyBuilder:
    return PolicyBuilder().store(Store([parsed(root)])).time(now.replace(tzinfo=None))


def test_a_server_is_believed_under_its_names() -> None:
    for name in (x509.DNSName("fed.example.org"), x509.IPAddress(ip_address("10.0.0.7"))):
        assert policy().build_server_verifier(name).verify(parsed(SERVER), []) == [parsed(SERVER), parsed(CA)]


@pytest.mark.parametrize(
    ("builder", "name", "pair"),
    [
        (policy(), x509.DNSName("example.org"), SERVER),
        (policy(), x509.DNSName("server"), SERVER),
        (policy(), x509.IPAddress(ip_address("10.0.0.8")), SERVER),
        (policy(now=LATER), x509.DNSName("fed.example.org"), SERVER),
        (policy(now=NOW - 2 * DAY), x509.DNSName("fed.example.org"), SERVER),
        (policy(FOREIGN), x509.DNSName("fed.example.org"), SERVER),
        (policy(), x509.DNSName("client-3"), CLIENT),
        (policy(), x509.DNSName("client-3"), SIGN),
    ],
    ids=["name", "common name", "address", "expired", "early", "foreign", "a client", "a signer"],
)
def test_a_server_is_not_believed(builder, name, pair) -> None:
    with pytest.raises(VerificationError):
        builder.build_server_verifier(name).verify(parsed(pair), [])


def test_a_client_is_believed() -> None:
    for pair, name in ((CLIENT, "client-3"), (SERVER, "fed.example.org")):
        told = policy().build_client_verifier().verify(parsed(pair), [])
        assert told.subjects[0] == x509.DNSName(name)


@pytest.mark.parametrize(
    ("builder", "pair"),
    [(policy(now=LATER), CLIENT), (policy(now=NOW - 2 * DAY), CLIENT), (policy(FOREIGN), CLIENT), (policy(), SIGN)],
    ids=["expired", "early", "foreign", "a signer"],
)
def test_a_client_is_not_believed(builder, pair) -> None:
    with pytest.raises(VerificationError):
        builder.build_client_verifier().verify(parsed(pair), [])


def test_a_client_can_not_issue() -> None:
    secret = Pair(CLIENT.certificate, CLIENT.key)
    leaf = x509.load_pem_x509_certificate(rekeyed(secret, EC, [certificates.CONNECTS]))
    with pytest.raises(VerificationError):
        policy().build_client_verifier().verify(leaf, [parsed(CLIENT)])


# By TLS, on this machine's clock.

TODAY = datetime.now(UTC)
HERE = certificates.authority("Here", 3650, TODAY)
THERE = certificates.authority("Here", 3650, TODAY)
PAST = certificates.authority("Past", 3650, TODAY - 400 * DAY)


def context(side: int, folder: Path, pair: Pair | None, root: Pair) -> ssl.SSLContext:
    """Return a context that trusts one authority alone, and by the strict rules."""
    made = ssl.SSLContext(side)
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=root.certificate.decode())
    if pair is not None:
        file = folder / f"{side}.pem"
        file.write_bytes(pair.certificate + pair.key)
        made.load_cert_chain(file)
    return made


def serve(listener: socket.socket, made: ssl.SSLContext) -> str | Exception:
    """Return the common name of who connects, or why it was refused."""
    try:
        plain, _ = listener.accept()
        plain.settimeout(5)
        with plain, made.wrap_socket(plain, server_side=True) as link:
            link.sendall(b"welcome")
            return dict(pair for (pair,) in link.getpeercert()["subject"])["commonName"]
    except OSError as error:
        return error


def meet(folder: Path, server: Pair, client: Pair | None, trusted: Pair = HERE, name: str = "127.0.0.1"):
    """Return what the server and the client of one connection say."""
    accepts = context(ssl.PROTOCOL_TLS_SERVER, folder, server, HERE)
    dials = context(ssl.PROTOCOL_TLS_CLIENT, folder, client, trusted)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(5)
        served = pool.submit(serve, listener, accepts)
        answer: bytes | Exception
        with contextlib.ExitStack() as stack:
            try:
                plain = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
                link = stack.enter_context(dials.wrap_socket(plain, server_hostname=name))
                answer = link.recv(7)
            except OSError as error:
                answer = error
        return served.result(10), answer


LOCAL = certificates.server(HERE, ["127.0.0.1", "localhost"], 365, TODAY)
FIVE = certificates.client(HERE, 5, 365, TODAY)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_both_are_let_in(name, tmp_path) -> None:
    assert meet(tmp_path, LOCAL, FIVE, name=name) == ("client-5", b"welcome")


def test_a_server_may_dial_another(tmp_path) -> None:
    assert meet(tmp_path, LOCAL, LOCAL) == ("server", b"welcome")


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        (certificates.client(THERE, 5, 365, TODAY), "CERTIFICATE_VERIFY_FAILED"),
        (certificates.client(PAST, 5, 365, TODAY - 400 * DAY), "CERTIFICATE_VERIFY_FAILED"),
        (certificates.signing(HERE, 5, 365, TODAY), "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["none", "foreign", "foreign and expired", "for signing"],
)
def test_a_client_is_refused(client, reason, tmp_path) -> None:
    served, answer = meet(tmp_path, LOCAL, client)
    assert isinstance(served, ssl.SSLError)
    assert served.reason == reason
    assert answer == b"" or isinstance(answer, OSError)


def expired(make, *what) -> Pair:
    """Return what HERE issued 400 days ago, had it been there."""
    root, then = parsed(HERE), TODAY - 400 * DAY
    builder = x509.CertificateBuilder(
        root.issuer, root.subject, root.public_key(), 5, then - DAY, TODAY + DAY, list(root.extensions)
    )
    older = builder.sign(serialization.load_pem_private_key(HERE.key, None), hashes.SHA256())
    return make(Pair(older.public_bytes(serialization.Encoding.PEM), HERE.key), *what, 365, then)


def test_an_expired_client_is_refused(tmp_path) -> None:
    served, _ = meet(tmp_path, LOCAL, expired(certificates.client, 5))
    assert isinstance(served, ssl.SSLCertVerificationError)
    assert "expired" in served.verify_message


@pytest.mark.parametrize(
    ("server", "trusted", "name", "reason"),
    [
        (LOCAL, HERE, "example.org", "mismatch"),
        (LOCAL, THERE, "localhost", ""),
        (FIVE, HERE, "client-5", "purpose"),
        (expired(certificates.server, ["localhost"]), HERE, "localhost", "expired"),
    ],
    ids=["name", "foreign", "a client", "expired"],
)
def test_a_server_is_refused(server, trusted, name, reason, tmp_path) -> None:
    served, answer = meet(tmp_path, server, FIVE, trusted, name)
    assert isinstance(answer, ssl.SSLCertVerificationError)
    assert reason in answer.verify_message
    assert isinstance(served, OSError)
