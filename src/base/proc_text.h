/* base/proc_text.h - numbers out of the small texts by which Linux tells what it counts.
 *
 * Each function takes the text of one kind of file and returns true when the number is there; a
 * text that is cut off, of another kernel, or no such text at all is false, never a guess. */
#ifndef HEADWAY_PROC_TEXT_H
#define HEADWAY_PROC_TEXT_H

#include "base/base.h"

/* Lines of "key value" or "key: value": /proc/self/io, cpu.stat. */
bool proc_value(const char *text, const char *key, u64 *out);
/* /proc/.../schedstat: ns on a processor, ns waiting for one, slices. */
bool proc_schedstat(const char *text, u64 *run_ns, u64 *queue_ns);
/* /proc/pressure/...: microseconds in which some task stood still. */
bool proc_pressure(const char *text, u64 *total_us);
/* /proc/stat: clock ticks that other virtual machines took, all processors. */
bool proc_steal(const char *text, u64 *ticks);
/* /proc/self/statm: the second number, resident pages. */
bool proc_resident(const char *text, u64 *pages);
/* /proc/self/cgroup: where the process is below the controller's folder. controller "cpu" is found
 * in a line of version 1; NULL asks for version 2's. */
bool proc_cgroup(const char *text, const char *controller, char *path, i64 chars);
/* A list such as "0-15,32-47": whether n is in it. */
bool proc_list_has(const char *text, u64 n);
/* /sys/devices/system/node/nodeN/distance: to node `to`, from 10 on. */
bool proc_distance(const char *text, int to, u64 *out);
/* A line of /proc/self/numa_maps: adds the bytes of what is the process's own (no file's pages) on
 * nodes in the mask, and on others. False where it tells of none. */
bool proc_numa_line(const char *line, u64 near_nodes, u64 *near_bytes, u64 *far_bytes);

#endif
