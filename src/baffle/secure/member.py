"""A member's side: a value that can be stored, and what the server is told. Store it before a message leaves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from baffle.certificates import Signer
from baffle.errors import ReportError
from baffle.messages import decode, encode
from baffle.secure.consent import consent_to, refuse_unsigned
from baffle.secure.derive import later, witness
from baffle.secure.epoch import LONGEST, Candidate, Random, Roster
from baffle.secure.held import Held
from baffle.secure.holding import shares_of
from baffle.secure.messages import Answer, Closing, Consent, Masked, Pledge, Request, Slot, ascending
from baffle.secure.pledge import binding_of, cut, make, name_of, report_binding, transcript_of
from baffle.secure.ring import Ring
from baffle.secure.shamir import SECRET
from baffle.secure.stored import Stored

AHEAD = 8
"""Most rounds ahead of which a member pledges."""
MOST_HELD = 64
"""Most slots for which a member holds secrets at a time."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an epoch.

    Every method returns the state afterwards and what to send. An older state brought back (from a backup) could be
    made to say for one peer what the newer had not, so store a state before its message leaves, and never go back.
    """

    number: int
    roster: Roster
    round: int
    """r, the first that is not forgotten."""
    chains: tuple[bytes, ...] = field(repr=False)
    """c_r with every member, in the roster's order, and nothing at its own place."""
    held: tuple[Held, ...] = ()

    @classmethod
    def of(cls, candidate: Candidate, roster: Roster) -> Member:
        """Return the member, without its private key, which nothing needs any more.

        Raises:
            ReportError: the roster is not what the candidate signed for, or has a key that is none.
        """
        return cls(candidate.number, roster, roster.terms.start, candidate.chains(roster))

    @classmethod
    def restored(cls, data: bytes) -> Member:
        """Return the member whose state was stored.

        Raises:
            ReportError: these bytes are no state, or one whose parts do not fit each other.
        """
        found = decode(data, Stored)
        found.refuse_damaged()
        return cls(found.number, found.roster, found.round, found.chains, found.held)

    def stored(self) -> bytes:
        """Return the state as bytes: secret, to be overwritten by the next."""
        return encode(Stored(self.number, self.roster, self.round, self.chains, self.held))

    def pledge(self, slot: Slot, random: Random) -> tuple[Member, Pledge]:
        """Return a pledge for a slot, with fresh secrets.

        A second one for the same slot takes the first one's place, until a report is masked.

        Raises:
            ReportError: the slot is forgotten or too far ahead, its report is masked, or too many are held.
        """
        if not self.round <= slot.round <= self.round + AHEAD or slot.round > self.roster.terms.start + LONGEST:
            raise ReportError(f"no pledge for round {slot.round} when round {self.round} is next")
        before = self._find(slot)
        if before is not None and before.cohort:
            raise ReportError(f"the report of round {slot.round}, attempt {slot.attempt} is masked")
        if before is None and len(self.held) >= MOST_HELD:
            raise ReportError(f"{len(self.held)} pledges are held and not forgotten")
        chains = [later(chain, slot.round - self.round) if chain else b"" for chain in self.chains]
        made = make(self.roster, self.number, chains, slot, random)
        return self._with(Held(slot, name_of(made.message), made.own, made.shares, made.seeds)), made.message

    def mask(
        self,
        slot: Slot,
        cohort: tuple[int, ...],
        ring: Ring,
        integers: NDArray[np.int64],
        weight: int,
        subject: bytes,
    ) -> tuple[Member, Masked]:
        """Return the masked report of slopes [K] and a weight, the only one of this slot.

            y_i = x_i + PRG(b_i) + Σ_{j∈C, j>i} PRG(h_ij) − Σ_{j∈C, j<i} PRG(h_ij)   mod 2^m

        Args:
            slot: for which a pledge is held.
            cohort: C, as the server shows it.
            ring: in which sums are.
            integers: [K], MISSING where there is none.
            weight: ≥ 1.
            subject: of the plan and θ, as this member has them: `subject_of`.

        Raises:
            ReportError: no pledge is held or its report is masked already; another attempt at the round has been
                finished; the cohort is too small, not ascending, has strangers or lacks this member, or is larger than
                the ring is made for.
            SettingsError: a slope or the weight is out of the ring's range.
        """
        held = self._pledged(slot)
        if held.cohort:
            raise ReportError(f"the report of round {slot.round}, attempt {slot.attempt} is masked already")
        self._refuse_second_sum(slot)
        self._refuse_cohort(cohort, ring)
        words = ring.encode(integers, weight)
        count = words.size
        words += ring.mask(held.own, count)
        others = self.roster.others(self.number)
        seeds = dict(zip(others, cut(held.seeds, SECRET), strict=True))
        for j in cohort:
            if j > self.number:
                words += ring.mask(seeds[j], count)
            elif j < self.number:
                words -= ring.mask(seeds[j], count)
        binding = binding_of(self.roster.digest, slot, cohort, ring.bits, count, subject)
        chains = self._chains_at(slot)
        witnesses = [witness(chains[j], self.number, j, binding) for j in cohort if j != self.number]
        done = msgspec.structs.replace(held, own=b"", seeds=b"", cohort=cohort, binding=binding)
        named = report_binding(binding, held.pledge)
        return self._with(done), Masked(slot, self.number, named, ring.pack(words), b"".join(witnesses))

    def confirm(self, closing: Closing, signer: Signer) -> tuple[Member, Consent]:
        """Return this member's signature of whose reports came, its own among them: one set for each slot, for ever.

        Raises:
            ReportError: the closing is about another roster, a slot for which this member has not masked, a U that is
                too small, lacks this member or is not the one it has signed or answered, or a second sum of one round.
        """
        held = self._closed(closing.slot, closing.digest, closing.reported)
        if self.number not in closing.reported:
            raise ReportError("the report of this member is not among those that came")
        transcript = transcript_of(held.binding, closing.reported)
        consent = consent_to(transcript, closing.slot, self.number, signer)
        return self._with(msgspec.structs.replace(held, reported=closing.reported)), consent

    def unmask(self, request: Request) -> tuple[Member, Answer]:
        """Return this member's shares: of b for the members that reported, of σ for the others of the cohort.

        One partition of the cohort for each slot, one slot for each round, for ever, and none that t members have not
        signed: asked again for the same it answers again, asked for another it refuses.

        Raises:
            ReportError: the request is about another roster, a slot or cohort for which this member has not masked, a
                U that is too small, not signed by t, or not the one it has signed or answered, or a second sum of one
                round.
        """
        slot = request.slot
        held = self._closed(slot, request.digest, request.reported)
        if request.cohort != held.cohort:
            raise ReportError("the request is about another cohort than the report was masked for")
        if len(request.deposits) != len(held.cohort) - 1:
            raise ReportError(f"{len(request.deposits)} deposits where {len(held.cohort) - 1} were due")
        refuse_unsigned(self.roster, request, transcript_of(held.binding, request.reported))
        answer = shares_of(self.roster.digest, self.number, self._chains_at(slot), request, held.shares, held.binding)
        return self._with(msgspec.structs.replace(held, reported=request.reported)), answer

    def transcript(self, slot: Slot) -> bytes:
        """Return what names the sum of a slot that this member has signed or answered, 32 bytes.

        Raises:
            ReportError: it has done neither.
        """
        held = self._pledged(slot)
        if held.reported is None:
            raise ReportError(f"nothing of round {slot.round}, attempt {slot.attempt} is signed or answered")
        return transcript_of(held.binding, held.reported)

    def forget(self, before: int) -> Member:
        """Return the member without any secret of rounds below `before`, for which it answers nothing from now on.

        Call it when a round is done, and before the server can ask for anything of it again.

        Raises:
            ReportError: that is beyond the longest epoch.
        """
        if before > self.roster.terms.start + LONGEST:
            raise ReportError(f"round {before} is beyond the longest epoch, {LONGEST} rounds")
        if before <= self.round:
            return self
        chains = tuple(later(chain, before - self.round) if chain else b"" for chain in self.chains)
        kept = tuple(held for held in self.held if held.slot.round >= before)
        return replace(self, round=before, chains=chains, held=kept)

    def _closed(self, slot: Slot, digest: bytes, reported: tuple[int, ...]) -> Held:
        """Return what is held of a slot, for which a sum over the `reported` may be opened as far as this member knows.

        Raises:
            ReportError: it may not.
        """
        held = self._pledged(slot)
        if digest != self.roster.digest:
            raise ReportError("the request is about another roster")
        if not held.cohort:
            raise ReportError(f"no report of round {slot.round}, attempt {slot.attempt} is masked")
        ascending(reported, "list of reports")
        if not set(reported) <= set(held.cohort):
            raise ReportError("a report is named that is not of the cohort")
        least = self.roster.terms.least
        if len(reported) < least:
            raise ReportError(f"{len(reported)} reports where at least {least} are added up")
        if held.reported is not None and held.reported != reported:
            raise ReportError(f"round {slot.round}, attempt {slot.attempt} was signed or answered for other reports")
        self._refuse_second_sum(slot)
        return held

    def _find(self, slot: Slot) -> Held | None:
        return next((held for held in self.held if held.slot == slot), None)

    def _pledged(self, slot: Slot) -> Held:
        held = self._find(slot)
        if held is None:
            raise ReportError(f"no pledge is held for round {slot.round}, attempt {slot.attempt}")
        return held

    def _with(self, new: Held) -> Member:
        return replace(self, held=(*(held for held in self.held if held.slot != new.slot), new))

    def _chains_at(self, slot: Slot) -> dict[int, bytes]:
        steps = slot.round - self.round
        found = zip(self.roster.members, self.chains, strict=True)
        return {number: later(chain, steps) for number, chain in found if chain}

    def _refuse_second_sum(self, slot: Slot) -> None:
        """Two sums of one round over cohorts that differ by one member would tell that member's part."""
        for held in self.held:
            if held.reported is not None and held.slot.round == slot.round and held.slot != slot:
                raise ReportError(f"round {slot.round} was finished in attempt {held.slot.attempt}")

    def _refuse_cohort(self, cohort: tuple[int, ...], ring: Ring) -> None:
        ascending(cohort, "cohort")
        if self.number not in cohort or not set(cohort) <= set(self.roster.members):
            raise ReportError("the cohort has strangers, or lacks this member")
        if not self.roster.terms.least <= len(cohort) <= ring.clients:
            raise ReportError(
                f"a cohort of {len(cohort)} where {self.roster.terms.least} to {ring.clients} are added up"
            )


__all__ = ["Member"]
