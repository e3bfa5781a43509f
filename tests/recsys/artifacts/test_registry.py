import json
import multiprocessing
import os
import shutil

import pytest

from recsys.artifacts import registry as registry_module
from recsys.artifacts.registry import Registry
from recsys.errors import BundleError


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


@pytest.fixture
def bundle(tmp_path):
    """Make a bundle folder whose manifest says `content`."""

    def make(content="1", name="bundle"):
        folder = tmp_path / name
        (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
        (folder / "bundle.json").write_text(json.dumps({"content": content}))
        (folder / "tokenizer" / "vocab.txt").write_text(content)
        return folder

    return make


@pytest.fixture
def three(registry, bundle):
    for version in ("A", "B", "C"):
        registry.add(bundle(version, name=version), version)
    return registry


def test_an_empty_registry(registry):
    assert registry.champion() is None
    assert registry.versions() == []
    assert registry.history() == []
    assert not registry.root.exists()
    for name in ("champion", "A"):
        with pytest.raises(BundleError):
            registry.path(name)


def test_add_takes_the_whole_bundle(registry, bundle):
    folder = registry.add(bundle("1"), "v1")
    assert folder == registry.path("v1")
    assert (folder / "tokenizer" / "vocab.txt").read_text() == "1"
    assert registry.versions() == ["v1"]
    assert registry.champion() is None


def test_files_are_hard_links_so_a_registry_costs_no_space(registry, bundle):
    source = bundle()
    folder = registry.add(source, "v1")
    assert os.path.samefile(folder / "bundle.json", source / "bundle.json")
    shutil.rmtree(source)
    assert (folder / "tokenizer" / "vocab.txt").read_text() == "1"


def test_without_hard_links_files_are_copied(registry, bundle, monkeypatch):
    def refuse(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(registry_module.os, "link", refuse)
    source = bundle()
    folder = registry.add(source, "v1")
    assert not os.path.samefile(folder / "bundle.json", source / "bundle.json")
    assert (folder / "tokenizer" / "vocab.txt").read_text() == "1"


def test_adding_again_is_a_no_op_and_another_bundle_an_error(registry, bundle):
    folder = registry.add(bundle("1"), "v1")
    inode = (folder / "bundle.json").stat().st_ino
    assert registry.add(bundle("1", name="same"), "v1") == folder
    assert (folder / "bundle.json").stat().st_ino == inode
    with pytest.raises(BundleError, match="another bundle") as error:
        registry.add(bundle("2", name="other"), "v1")
    assert "new version" in error.value.fix
    assert (folder / "tokenizer" / "vocab.txt").read_text() == "1"


def test_a_bundle_that_was_evaluated_again_is_the_same(registry, bundle):
    folder = registry.add(bundle("1"), "v1")
    again = bundle("1", name="again")
    manifest = {"content": "1", "metrics": {"all/ndcg@10": 0.1}, "seal": "x"}
    (again / "bundle.json").write_text(json.dumps(manifest))
    assert registry.add(again, "v1") == folder


@pytest.mark.parametrize("version", ["", "champion", "../x", "a/b", ".hidden", "a b", "v1\n"])
def test_unfit_version_names(registry, bundle, version):
    with pytest.raises(BundleError, match="version name"):
        registry.add(bundle(), version)


def test_a_folder_without_a_manifest_is_no_bundle(registry, tmp_path):
    with pytest.raises(BundleError, match="bundle.json"):
        registry.add(tmp_path, "v1")


def test_promote_and_roll_back(three):
    three.promote("A")
    three.promote("B")
    assert three.champion() == "B"
    assert three.path("champion") == three.path("B")
    assert three.rollback() == "A"
    assert three.champion() == "A"
    with pytest.raises(BundleError, match="no champion before") as error:
        three.rollback()
    assert "promote" in error.value.fix
    assert three.champion() == "A"


def test_the_first_champion_and_none_cannot_be_rolled_back(three):
    with pytest.raises(BundleError):
        three.rollback()
    three.promote("A")
    with pytest.raises(BundleError):
        three.rollback()


def test_rollbacks_go_back_one_promotion_each(three):
    for version in ("A", "B", "A", "C"):
        three.promote(version)
    assert three.rollback() == "A"
    assert three.rollback() == "B"
    three.promote("C")
    assert three.rollback() == "B"
    assert three.rollback() == "A"
    with pytest.raises(BundleError):
        three.rollback()


def test_history_tells_every_move(three):
    three.promote("A")
    three.promote("B")
    three.promote("B")  # nothing to do
    three.rollback()
    moves = [(m["action"], m["previous"], m["version"]) for m in three.history()]
    assert moves == [("promote", None, "A"), ("promote", "A", "B"), ("rollback", "B", "A")]
    assert all(m["promoted_at"].endswith("+00:00") for m in three.history())
    on_disk = json.loads((three.root / "registry.json").read_text())
    assert on_disk == {"format": 1, "champion": "A", "history": three.history()}


def test_evidence_is_kept_with_its_move(three):
    """Moves without any, such as those of earlier releases, are read as before."""
    evidence = {"forced": True, "refusals": ["it is slow"]}
    three.promote("A")
    assert three.evidence() == {}
    three.promote("B", over="A", evidence=evidence)
    assert three.history()[-1]["evidence"] == evidence and "evidence" not in three.history()[0]
    assert three.evidence() == evidence
    three.promote("C")
    three.promote("B", evidence={"forced": False})
    assert three.evidence() == {"forced": False}
    three.rollback()
    three.rollback()
    assert three.champion() == "B" and three.evidence() == evidence


def test_a_promotion_over_another_champion_than_the_one_compared_with_is_refused(three):
    three.promote("A", over=None)
    three.promote("B", over="A")
    for compared_with in ("A", None):
        with pytest.raises(BundleError, match="another was first: B is champion since"):
            three.promote("C", over=compared_with)
    three.promote("B", over="A")  # it is champion
    assert three.champion() == "B"


def test_unknown_versions_are_refused_and_the_known_named(three):
    three.promote("A")
    for use in (three.promote, three.path):
        with pytest.raises(BundleError, match="no such version") as error:
            use("D")
        assert "A, B, C" in error.value.fix
    assert three.champion() == "A"


def test_no_rollback_to_a_bundle_that_is_gone(three):
    three.promote("A")
    three.promote("B")
    shutil.rmtree(three.path("A"))
    with pytest.raises(BundleError, match="no such version"):
        three.rollback()
    assert three.champion() == "B"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\ud800",
        "[]",
        '{"format": 2, "champion": null, "history": []}',
        '{"format": 1, "champion": null}',
        '{"format": 1, "champion": "B", "history": []}',
        '{"format": 1, "champion": "B", "history": 3}',
        '{"format": 1, "champion": "B", "history": ["B"]}',
        '{"format": 1, "champion": "B", "history": [{"action": "promote"}]}',
        '{"format": 1, "champion": null, "history": [{"action": "rollback"}]}',
        '{"format": 1, "champion": "A", "history": [{"action": "promote", "version": "A", '
        '"previous": null, "promoted_at": "now", "evidence": "none"}]}',
    ],
)
def test_a_broken_registry_file(three, text):
    three.promote("A")
    file = three.root / "registry.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    for use in (three.champion, three.history, three.rollback, lambda: three.promote("B")):
        with pytest.raises(BundleError, match="registry.json") as error:
            use()
        assert "move it aside" in error.value.fix
    file.unlink()
    three.promote("B")
    assert three.champion() == "B"


def test_a_crash_while_copying_leaves_no_version(registry, bundle, monkeypatch):
    registry.add(bundle("0", name="first"), "v0")

    def crash(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys.storage.outputs.os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        registry.add(bundle("1"), "v1")
    assert registry.versions() == ["v0"]
    with pytest.raises(BundleError):
        registry.path("v1")
    left_over = [p.name for p in (registry.root / "bundles").iterdir() if p.name != "v0"]
    assert [name.startswith(".tmp-v1-") for name in left_over] == [True]
    with pytest.raises(BundleError):
        registry.path(left_over[0])

    monkeypatch.undo()
    registry.add(bundle("1"), "v1")
    assert sorted(p.name for p in (registry.root / "bundles").iterdir()) == ["v0", "v1"]


def test_a_crash_while_promoting_leaves_the_old_champion(three, monkeypatch):
    three.promote("A")

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("recsys.storage.outputs.os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        three.promote("B")
    monkeypatch.undo()
    assert three.champion() == "A"
    three.promote("B")
    assert three.rollback() == "A"


def _promote(root, versions):
    for version in versions * 5:
        Registry(root).promote(version)


def test_promotions_at_once_do_not_lose_each_other(three):
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_promote, args=(three.root, [a, b])) for a, b in ("AB", "CA")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    moves = three.history()
    # Each move starts from where the one before it ended.
    assert [m["previous"] for m in moves] == [None, *(m["version"] for m in moves[:-1])]
    assert moves[-1]["version"] == three.champion()
