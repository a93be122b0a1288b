"""Judges grade text: ``(Sample, Response) -> Verdict``. Rules here; the toy oracle joins by registration. No torch."""
