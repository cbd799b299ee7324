/* scales.h - dimension scales. */
#ifndef BG_STORE_SCALES_H
#define BG_STORE_SCALES_H

#include "handle.h"

/* Give every axis of the datasets made its dimension scale. */
bg_status bg_axes_attach(bg_store *s, bg_err *err) BG_MUST_CHECK;

#endif /* BG_STORE_SCALES_H */
