/* thread.h: a step on a thread that lives for nothing else. */
#pragma once
#include "pyoci.h"

int on_a_thread(void *(*run)(void *), void *argument, struct po_error *ret_error);
