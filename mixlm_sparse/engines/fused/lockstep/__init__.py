"""The fused search of many responses at once in NumPy: each step is taken for all that are left.

Where the whole search is no machine code yet, a search in Python costs a response some hundred
calls of NumPy.  Here such a call serves a block of responses: numbers of response f are at [..., f]
of every array, and responses leave as their searches end.  The mathematics and the steps are those
of the compiled search (`engines.fused.descent`, `boundary`, `start`, `search`), which is read
beside it.

What a response is given does not depend, to the last digit, on those beside it: arithmetic is
elementwise along the responses, sums over other axes are added one after another in a fixed order,
and LAPACK takes matrices of one response at a time.
"""
