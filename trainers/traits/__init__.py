"""A preference from one sentence: opposed answers are written, checked, judged, and kept or not."""
