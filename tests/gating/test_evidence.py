from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from evidence_for_tests import make_bundle, make_manifest

from edgeprune.errors import InputError
from edgeprune.gating.archive import pack, unpack
from edgeprune.gating.evidence import CARD, MEMBERS, EvidenceBundle, pack_evidence, unpack_evidence
from edgeprune.gating.judge import judge
from edgeprune.records.verdict import Verdict


@pytest.fixture
def bundle(tmp_path: Path) -> EvidenceBundle:
    return make_bundle(make_manifest(tmp_path))


def test_round_trip_gives_the_same_judgement_and_the_same_bytes(bundle: EvidenceBundle) -> None:
    content = pack_evidence(bundle)
    found = unpack_evidence(content, where="e.zip")
    assert found == bundle
    assert judge(found.evidence) == bundle.judgement
    assert bundle.judgement.verdict is Verdict.PASS
    assert pack_evidence(found) == content


def test_flips_in_every_member_and_in_the_structure_are_found(bundle: EvidenceBundle) -> None:
    content, rng = pack_evidence(bundle), random.Random(1)
    members = unpack(content, where="e.zip")
    places = [rng.randrange(len(content)) for _ in range(150)]
    for name in (*MEMBERS, CARD):
        start = content.index(members[name])
        places += [start, start + len(members[name]) - 1]
        places += [start + rng.randrange(len(members[name])) for _ in range(20)]
    # All of the central directory and the end record, which follow the last member.
    places += range(content.index(b"PK\x01\x02"), len(content))
    for at in places:
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randrange(8)
        with pytest.raises(InputError, match="damaged or changed"):
            unpack_evidence(bytes(changed), where="e.zip")


@pytest.mark.parametrize("name", MEMBERS)
def test_an_archive_without_a_member_is_no_evidence(bundle: EvidenceBundle, name: str) -> None:
    members = unpack(pack_evidence(bundle), where="e.zip")
    del members[name]
    with pytest.raises(InputError, match=f"no {name}"):
        unpack_evidence(pack(members), where="e.zip")


def test_evidence_of_before_has_no_card(bundle: EvidenceBundle) -> None:
    members = unpack(pack_evidence(bundle), where="e.zip")
    del members[CARD]
    assert unpack_evidence(pack(members), where="e.zip") == replace(bundle, card=None)


def test_a_foreign_member_is_refused(bundle: EvidenceBundle) -> None:
    members = {**unpack(pack_evidence(bundle), where="e.zip"), "notes.txt": b"hello"}
    with pytest.raises(InputError, match=r"a foreign notes\.txt"):
        unpack_evidence(pack(members), where="e.zip")


@pytest.mark.parametrize("name", sorted(set(MEMBERS) - {"manifest.json"}))
def test_a_member_that_is_no_such_record_is_named(bundle: EvidenceBundle, name: str) -> None:
    members = {**unpack(pack_evidence(bundle), where="e.zip"), name: b"{}"}
    with pytest.raises(InputError, match=rf"e\.zip: {name}: not a valid"):
        unpack_evidence(pack(members), where="e.zip")


def test_another_version_is_refused(bundle: EvidenceBundle) -> None:
    later = replace(bundle, origin=replace(bundle.origin, schema=4))
    with pytest.raises(InputError, match="schema: expected one of 1, 2, 3, got 4"):
        unpack_evidence(pack_evidence(later), where="e.zip")
