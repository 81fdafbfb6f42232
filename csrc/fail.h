/* fail.h: how a failure is told through struct po_error. */
#pragma once
#include "pyoci.h"

#include <string.h>

/* Notes what failed, and the path it was about (NULL: none), which is cut to fit. Returns -err. */
static inline int fail(struct po_error *error, int err, enum po_stage stage, const char *path) {
    error->err = err;
    error->stage = stage;
    memset(error->path, 0, PO_PATH_MAX);
    if (path)
        memccpy(error->path, path, '\0', PO_PATH_MAX - 1);
    return -err;
}
