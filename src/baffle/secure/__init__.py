"""Secure aggregation: the server learns the weighted sum of a cohort's reports, and no report.

    enrolment → roster → { pledge → masked report → closing → consent → request → answer → sums } per slot → forget

Double masking of Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine Learning"), set up
once for many rounds by pledges that members make ahead of each. What is revealed to finish one slot opens no other, as
in Ma et al. 2023 (Flamingo); what a member has forgotten, its keys no longer tell. A slot is an attempt at a round.

Of n members, c work with the server. While the server follows the protocol and c < t, they learn the sum over the
members that reported, at least t and `minimum` of them, and nothing else. A server that lies gets, while c < 2t − n,

    one sum a slot, over one set U of members, t − c honest ones or more, all asked the same plan at the same θ

for a member tells no share before t members of U have signed the cohort, what it was asked, and U (the paper's check
of consistency); an honest member signs one U a slot, and two would take 2(t − c) of n − c signatures. What a member
has masked for another cohort, plan or θ than those who answer stays masked. n = 200, t = 134: 134 honest members for
c = 0, 114 for 20, 84 for 50; from c = 68 on nothing is promised.

Two sums never have one member's same integers in them: where members keep to `baffle.engines.network.commitments`,
whatever a server asks in a second epoch is computed with other batches and rounding, and slots go forward only. The
mean of what a member is asked again and again still shows through; differential privacy bounds that, and nothing here.
Nothing here keeps a member from reporting false slopes within the rules or from stopping a round: a sum's range is all
that is checked, so that one member can move it by as much as all together might. Whoever breaks what it has pledged is
found out, with a name, or with two of which one lies; who sends random words, by `GroupTesting` of sums.
"""

from __future__ import annotations

from baffle.secure.aggregation import Aggregation, Sums
from baffle.secure.epoch import Candidate, Roster, Terms, usual_threshold
from baffle.secure.group_testing import GroupTesting
from baffle.secure.member import Member
from baffle.secure.messages import Answer, Closing, Consent, Enrolment, Masked, Pledge, Request, Slot
from baffle.secure.pledge import checked, consistent
from baffle.secure.refusals import AbandonedError, ForgeryError, SpoiltError
from baffle.secure.ring import Ring
from baffle.secure.subject import subject_of

__all__ = [
    "AbandonedError",
    "Aggregation",
    "Answer",
    "Candidate",
    "Closing",
    "Consent",
    "Enrolment",
    "ForgeryError",
    "GroupTesting",
    "Masked",
    "Member",
    "Pledge",
    "Request",
    "Ring",
    "Roster",
    "Slot",
    "SpoiltError",
    "Sums",
    "Terms",
    "checked",
    "consistent",
    "subject_of",
    "usual_threshold",
]
