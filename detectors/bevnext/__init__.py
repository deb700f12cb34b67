"""BEVNeXt: six cameras, depth refined by a CRF, lifted to BEV, boxes refined by looking back at the images."""
