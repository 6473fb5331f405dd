"""data.root=s3://... against a real S3 server of this machine. To run it: pip install s3fs 'moto[server]'."""

import hashlib
import json

import pytest

from helpers import SMALL, call_main
from segnet import mirror
from segnet.errors import UserError

boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

# Of aiohttp, whose sessions end with the process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "very-secret-key",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def endpoint():
    """The address of a server."""
    one = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    one.start()
    host, port = one.get_host_and_port()
    yield f"http://{host}:{port}"
    one.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch, cable):
    """A client; the rendered cables are in s3://parts/cable, and what is not theirs beside them."""
    for key, value in {**KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(key, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="parts")
    for path in cable.rglob("*.png"):
        client.upload_file(str(path), "parts", f"cable/{path.relative_to(cable).as_posix()}")
    client.put_object(Bucket="parts", Key="cable/images/", Body=b"")  # what S3's console makes of a folder
    client.put_object(Bucket="parts", Key="cable2/other.png", Body=b"no")
    yield client
    for item in client.list_objects_v2(Bucket="parts")["Contents"]:
        client.delete_object(Bucket="parts", Key=item["Key"])
    client.delete_bucket(Bucket="parts")


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_bucket_is_mirrored_and_kept_up_to_date(bucket, cable, tmp_path, capsys):
    home = mirror.update("s3://parts/cable", tmp_path)
    assert hashes(home) == hashes(cable)
    first, second, *_ = sorted(path.relative_to(home).as_posix() for path in home.rglob("*.png"))
    swapped = (home / first).read_bytes()[::-1]  # another content of the same size
    bucket.put_object(Bucket="parts", Key=f"cable/{first}", Body=swapped)
    bucket.delete_object(Bucket="parts", Key=f"cable/{second}")
    bucket.put_object(Bucket="parts", Key="cable/new [1]/x*y ü.png", Body=b"new")
    capsys.readouterr()
    mirror.update("s3://parts/cable", tmp_path)
    assert "2 fetched, 1 deleted" in capsys.readouterr().err
    expected = {name: code for name, code in hashes(cable).items() if name != second}
    expected |= {first: hashlib.sha256(swapped).hexdigest(), "new [1]/x*y ü.png": hashlib.sha256(b"new").hexdigest()}
    assert hashes(home) == expected
    mirror.update("s3://parts/cable", tmp_path)
    assert "0 fetched, 0 deleted" in capsys.readouterr().err


def test_a_key_that_leads_out_of_the_mirror_is_refused(bucket, tmp_path):
    bucket.put_object(Bucket="parts", Key="cable/../../out.png", Body=b"out")
    with pytest.raises(UserError, match="is no name that a file below a folder can have here"):
        mirror.update("s3://parts/cable", tmp_path / "cache")
    assert not list(tmp_path.rglob("*.png"))


def test_no_bucket_and_no_server(bucket, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="s3://nowhere/x: there is no file below it"):
        mirror.update("s3://nowhere/x", tmp_path)
    home = mirror.update("s3://parts/cable", tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    assert mirror.update("s3://parts/cable", tmp_path) == home
    with pytest.raises(UserError, match="is no whole mirror of it; check the address"):
        mirror.update("s3://parts/other", tmp_path)
    s3fs.S3FileSystem.clear_instance_cache()


def test_training_and_evaluation_on_a_bucket(bucket, cable, tmp_path):
    out, cache = tmp_path / "run", tmp_path / "cache"
    given = [*SMALL, "experiment=quickstart", "~callbacks.panels", f"data.cache_dir={cache}"]
    assert call_main("train", *given, "data.root=s3://parts/cable", f"output_dir={out}") == 0
    assert call_main("train", *given, f"data.root={cable}", f"output_dir={tmp_path / 'local'}") == 0
    figures = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (out, tmp_path / "local")]
    assert figures[0] == figures[1]
    assert call_main("check_data", "data=folder", "data.root=s3://parts/cable", f"data.cache_dir={cache}",
                     f"output_dir={tmp_path / 'check'}") == 0  # fmt: skip
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) > 60
    for secret in (KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]):
        assert not [path for path in left if secret.encode() in path.read_bytes()]
