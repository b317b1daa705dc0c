"""One file per API: pure functions from bodies and chunks to facts. ``routes.py`` maps endpoints to them.

Adding an operation
-------------------

1. ``operations/NAME.py``: a function ``request(body)`` that returns what was asked, a function
   ``response(reply, body)`` that folds the answer into the reply and, if it streams, ``chunk(reply, event)``;
   below them the row, ``NAME = Operation("gen_ai.operation.name", request, response, chunk)``. A body is the
   JSON that is sent, one of the client's models, or JSON read off the wire: read it with ``facts.fields``,
   ``facts.pick`` and the readers beside them, which tolerate missing and ill-typed values. ``moderations.py``
   is the smallest example, ``other.py`` the one without entries.
2. ``capture/routes.py``: one row, ``("post", "/path/{id}"): NAME``. Sync, async, raw and streaming responses,
   retries, errors and every kind of ending come with it.
3. ``codec.py``: for a generation, one row in ``OPERATIONS``, its name → its name in ``events.log``. For a
   call that is only a span, the row of step 1 has ``entries=False`` instead.
4. ``tests/capture/test_operations.py``: one ``Case`` in ``CASES``. It is run bare and instrumented, sync and
   async, in each form of the call, succeeding and failing, and with content capture off.
"""
