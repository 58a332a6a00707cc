/* train/events.h - scalars for TensorBoard (event files, format "brain.Event:2").
 *
 * A record is length, masked CRC32C of the length, data, masked CRC32C of the data; the
 * data is an Event message (step, wall time, Summary of tag and float). The JSON Lines of
 * the run are the truth; this file is derived and may be deleted. */
#ifndef HEADWAY_EVENTS_H
#define HEADWAY_EVENTS_H

#include "base/base.h"
#include "base/text.h"

struct events {
    int fd;           /* -1: closed */
    struct text data; /* one Event, reused */
};

/* Creates events.out.tfevents.<seconds>.<host>.<pid>.0 in the folder. */
int events_open(struct events *e, const char *folder);
/* One scalar of one step. Failing to write is reported once and closes the file: a full
 * disk must not end the run. */
void events_scalar(struct events *e, i64 step, double wall_seconds, const char *tag,
                   double value);
void events_close(struct events *e);

#endif
