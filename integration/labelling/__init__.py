"""Instance masks for a whole data set, from 3D boxes: `bevnext-sam2 sam2 label`."""
