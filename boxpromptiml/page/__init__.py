"""Browser page: one image, a box, the teacher's pseudo-mask, the student's map."""
