"""A page in the browser: one image, a box, the teacher's pseudo-mask, the student's map."""
