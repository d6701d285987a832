"""Any mix for each request on stock vLLM: ``model: "helpful=0.8,polite=-0.3"``.

``register`` is what vLLM calls at its start, in each of its processes (the entry point in the group
``vllm.general_plugins``). It does nothing unless ``PV_MERGE_VECTORS`` is set.
"""
