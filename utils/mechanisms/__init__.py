"""The particle mechanisms of this program, a folder each. A mechanism's name stands here and in its folder, nowhere else.

NAME/plan.py: what is known of it without torch (utils/mechanisms/plan.py says what that may be), as PLAN
NAME/act.py:  the mechanism itself (utils/sampling/mechanism.py), built by `build`
"""

# in which they act within a step
ORDER = ("pyramid", "start", "repulsion", "recombination", "pruning", "children", "optimization", "polish")
