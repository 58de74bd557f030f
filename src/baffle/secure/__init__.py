"""Secure aggregation: the server learns the weighted sum of a cohort's reports, and no report.

    enrolment → roster → { pledge → masked report → request → answer → sums } for each slot → forget

Double masking of Bonawitz et al. 2017 ("Practical Secure Aggregation for Privacy-Preserving Machine Learning"), set up
once for many rounds by pledges that members make ahead of each. What is revealed to finish one slot opens no other, as
in Ma et al. 2023 (Flamingo); what a member has forgotten, its keys no longer tell. A slot is an attempt at a round.

Of n members, c work with the server. While the server follows the protocol and c < t, they learn the sum over the
members that reported, at least t and `minimum` of them, and nothing else. A server that lies gets, while c < 2t − n,

    one sum a slot, over (n − c)(2t − n − c)/(t − c) honest members or more

and not t − c: each member answers one partition of the cohort into reported and gone, but two members need not have
been asked about the same, and secrets that different members told can be put together (n = 200, t = 134: 102 honest
members for c = 0, 76 for 20, 32 for 50). Bonawitz's consistency check, one more exchange in which members sign the
partition and see t signatures, would make it t − c again. In an epoch, members finish one attempt at a round; a new
epoch can ask for the round again, so whoever fears the difference of two sums needs differential privacy besides.
Nothing here keeps a member from reporting false slopes within the rules, as large as they may be, or from stopping a
round; the latter is found out, with a name, or with two of which one lies.
"""

from __future__ import annotations

from baffle.secure.aggregation import Aggregation, Sums
from baffle.secure.epoch import Candidate, Roster, Terms, usual_threshold
from baffle.secure.group_testing import GroupTesting
from baffle.secure.member import Member
from baffle.secure.messages import Answer, Enrolment, Masked, Pledge, Request, Slot
from baffle.secure.pledge import checked, consistent
from baffle.secure.refusals import AbandonedError, ForgeryError, SpoiltError
from baffle.secure.ring import Ring

__all__ = [
    "AbandonedError",
    "Aggregation",
    "Answer",
    "Candidate",
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
    "usual_threshold",
]
