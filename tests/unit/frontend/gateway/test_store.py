"""The store in SQLite and in a real PostgreSQL: migrations, transactions, processes that write at once, failures."""

import multiprocessing
import sqlite3
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from frontend.errors import Conflict, StoreUnavailable
from frontend.gateway.key_records import KeyRecords, NewKey
from frontend.gateway.keys import Pepper
from frontend.gateway.store.database import Store
from frontend.gateway.store.tables import METADATA, USAGE
from frontend.gateway.usage import UsageCounter, read_usage, today
from frontend.gateway.versions import Versions
from frontend.request_usage import RequestUsage
from tests.support.postgres import postgres_server


@pytest.fixture(scope="module")
def postgres():
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'data' / 'trident.db'}"
    url = request.getfixturevalue("postgres").url
    with sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:")).begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    return url


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


@pytest.fixture
def records(store, tmp_path):
    return KeyRecords(store, Pepper(tmp_path / "pepper"))


def test_migrations_make_the_tables(store):
    store.write(lambda connection, revision: None)

    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection), METADATA)

    assert store.read(differences) == []


def test_prepared_store_is_not_migrated_again(store, url, monkeypatch):
    store.write(lambda connection, revision: None)
    monkeypatch.setattr("alembic.command.upgrade", None)
    other = Store(url)
    assert other.revision() == 1
    other.close()


def test_each_change_has_a_revision(store):
    assert [store.write(lambda connection, revision: revision) for _ in range(3)] == [1, 2, 3]
    assert store.revision() == 3


def test_failed_change_changes_nothing(store, records):
    records.create(NewKey(keyId="a"), "me")
    with pytest.raises(Conflict):
        records.create(NewKey(keyId="a"), "me")
    assert store.revision() == 1
    assert [key["keyId"] for key in records.all()] == ["a"]


def test_versions_round_trip(store):
    versions = Versions(store)
    assert versions.numbers() == []
    content = {"aliases": {"名字": "x"}, "services": {}}
    assert versions.add(0, content, "me", "test", "first") == 1
    assert versions.get(1) == content
    with pytest.raises(Conflict):
        versions.add(0, content, "me", "test")
    assert versions.add(1, {}, "me", "test") == 2
    assert versions.numbers() == [1, 2]


def test_of_many_writers_one_wins(store):
    versions, results = Versions(store), []
    versions.add(0, {}, "me", "test")
    barrier = threading.Barrier(8)

    def write():
        barrier.wait()
        try:
            results.append(versions.add(1, {}, "me", "test"))
        except Conflict:
            results.append(None)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [2] + [None] * 7


def _count(url, times):
    counter = UsageCounter(Store(url, in_threads=False))
    for _ in range(times):
        counter.add("k", "m", "chat", 200, RequestUsage(input_tokens=2, output_tokens=1, images=1, audio_seconds=0.5))
        counter.flush()


def test_usage_of_several_processes_is_added_up(store, url):
    store.write(lambda connection, revision: None)
    processes = [multiprocessing.get_context("spawn").Process(target=_count, args=(url, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    (row,) = read_usage(store, today(), today())
    assert (row["requests"], row["input_tokens"], row["output_tokens"]) == (75, 150, 75)
    assert (row["images"], row["audio_seconds"], row["errors"]) == (75, 37.5, 0)


def test_usage_is_kept_while_the_store_does_not_respond(store, monkeypatch):
    counter = UsageCounter(store)
    counter.add("k", "m", "chat", 200, RequestUsage(input_tokens=2))
    original = store._run

    def fail(*_, **__):
        raise StoreUnavailable("gone")

    monkeypatch.setattr(store, "_run", fail)
    counter.flush()
    counter.add("k", "m", "chat", 500, RequestUsage(input_tokens=3))
    monkeypatch.setattr(store, "_run", original)
    counter.flush()
    (row,) = read_usage(store, today(), today())
    assert (row["requests"], row["errors"], row["input_tokens"]) == (2, 1, 5)


def test_old_usage_is_deleted(store):
    row = {"day": "2020-01-01", "key_id": "", "model": "m", "service": "chat", "requests": 1, "errors": 0}
    row |= {"input_tokens": 0, "output_tokens": 0, "audio_seconds": 0, "images": 0}
    store.write(lambda connection, revision: connection.execute(USAGE.insert().values(row)))
    assert read_usage(store, "2020-01-01", "2020-01-01")
    counter = UsageCounter(store)
    counter.add("k", "m", "chat", 200, RequestUsage())
    counter.flush()
    assert read_usage(store, "2020-01-01", "2020-01-01") == []


def test_keys_cannot_be_changed_with_another_pepper(records, store, tmp_path):
    records.create(NewKey(keyId="a"), "me")
    other = Pepper(tmp_path / "other")
    other.create()
    with pytest.raises(StoreUnavailable, match="pepper"):
        KeyRecords(store, other).create(NewKey(keyId="b"), "me")
    with pytest.raises(StoreUnavailable, match="the pepper is missing"):
        KeyRecords(store, Pepper(tmp_path / "missing")).create(NewKey(keyId="b"), "me")


class TestSQLite:
    def test_nothing_is_created_by_reading(self, tmp_path):
        store = Store(f"sqlite:///{tmp_path / 'data' / 'trident.db'}")
        assert not store.exists
        assert Versions(store).numbers() == []
        assert not (tmp_path / "data").exists()

    def test_files_are_private(self, tmp_path):
        store = Store(f"sqlite:///{tmp_path / 'data' / 'trident.db'}")
        store.write(lambda connection, revision: None)
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "trident.db").stat().st_mode & 0o777 == 0o600

    def test_locked_database_is_reported(self, tmp_path, monkeypatch):
        monkeypatch.setattr("frontend.gateway.store.database._BUSY_SECONDS", 0)
        path = tmp_path / "trident.db"
        store = Store(f"sqlite:///{path}")
        store.write(lambda connection, revision: None)
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable):
                store.write(lambda connection, revision: None)
            assert store.revision() == 1  # reading goes on
            other.execute("ROLLBACK")

    def test_damaged_file_is_reported(self, tmp_path):
        (tmp_path / "trident.db").write_bytes(b"nonsense" * 1000)
        with pytest.raises(StoreUnavailable):
            Store(f"sqlite:///{tmp_path / 'trident.db'}").revision()


class TestPostgres:
    def test_database_without_an_encoding(self, postgres):
        engine = sa.create_engine(postgres.url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"))
        store = Store(postgres.url.rpartition("/")[0] + "/ascii")
        assert store.revision() == 0
        store.close()

    def test_lost_and_found(self, postgres):
        store = Store(postgres.url)
        before = store.write(lambda connection, revision: revision)
        postgres.kill()
        with pytest.raises(StoreUnavailable):
            store.revision()
        postgres.start()
        assert store.revision() == before

    def test_passwords_are_not_logged(self, caplog):
        store = Store("postgresql://user:SECRET@127.0.0.1:1/db")
        with pytest.raises(StoreUnavailable), caplog.at_level("DEBUG"):
            store.revision()
        assert caplog.text
        assert "SECRET" not in caplog.text


@pytest.mark.parametrize("url", ["nonsense", "sqlite"])
def test_invalid_url(url):
    with pytest.raises(ValueError, match="not valid"):
        Store(url)
