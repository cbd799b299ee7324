/* checkpoint.h - which folder a model's name means: its own, or that of a checkpoint of a training run. */
#ifndef BG_CHECKPOINT_H
#define BG_CHECKPOINT_H

#include "bregman/path.h"

/* NAME, unless there is no such folder and it is DIR@STEP, a folder and a whole number: then DIR/step-NNNNNNNN, as
 * train_models writes them, or DIR/checkpoint-STEP, as Hugging Face's trainer does.  BG_EIO listing the steps that DIR
 * has. */
bg_status bg_checkpoint_folder(const char *name, char out[BG_PATH_BYTES], bg_err *err) BG_MUST_CHECK;

#endif /* BG_CHECKPOINT_H */
