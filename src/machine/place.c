#include "machine/place.h"

#include "base/hash.h"
#include "base/sys.h"

#include <hwloc.h>

static bool open_topology(hwloc_topology_t *t)
{
    sys_setenv_default("HWLOC_HIDE_ERRORS", "2");
    if (hwloc_topology_init(t) != 0)
        return false;
    if (hwloc_topology_load(*t) == 0)
        return true;
    hwloc_topology_destroy(*t);
    return false;
}

/* The cores of this process; the caller frees it. */
static hwloc_cpuset_t own_cores(hwloc_topology_t t)
{
    hwloc_cpuset_t set = hwloc_bitmap_alloc();
    if (set && hwloc_get_cpubind(t, set, HWLOC_CPUBIND_PROCESS) != 0)
        hwloc_bitmap_copy(set, hwloc_topology_get_allowed_cpuset(t));
    return set;
}

u64 machine_place_now(void)
{
    hwloc_topology_t t;
    u64 hash = 0;
    if (!open_topology(&t))
        return 0;
    hwloc_cpuset_t set = own_cores(t);
    int last = set ? hwloc_bitmap_last(set) : -1;
    for (int i = 0; i <= last; i++) {
        u8 bit = (u8)hwloc_bitmap_isset(set, (unsigned)i);
        hash = hash64(&bit, 1, hash);
    }
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(t);
    return hash;
}

/* Units in logical order: neighbours there share most. */
static int bind_to_part(hwloc_topology_t t, hwloc_const_cpuset_t mine, int seat, int seats)
{
    int units = hwloc_bitmap_weight(mine), unit = 0, taken = 0;
    i64 first = (i64)units * seat / seats, last = (i64)units * (seat + 1) / seats;
    hwloc_cpuset_t part = hwloc_bitmap_alloc();
    if (!part)
        return 0;
    int depth = hwloc_get_type_depth(t, HWLOC_OBJ_PU);
    for (hwloc_obj_t o = hwloc_get_obj_by_depth(t, depth, 0); o; o = o->next_cousin) {
        if (!hwloc_bitmap_isincluded(o->cpuset, mine))
            continue;
        if (unit >= first && unit < last) {
            hwloc_bitmap_or(part, part, o->cpuset);
            taken++;
        }
        unit++;
    }
    if (taken == 0 || hwloc_set_cpubind(t, part, HWLOC_CPUBIND_PROCESS) != 0)
        taken = 0;
    hwloc_bitmap_free(part);
    return taken;
}

int machine_place(int seat, int seats)
{
    hwloc_topology_t t;
    int taken = 0;
    if (seats < 2 || !open_topology(&t))
        return 0;
    hwloc_cpuset_t mine = own_cores(t);
    if (mine && hwloc_bitmap_weight(mine) >= seats)
        taken = bind_to_part(t, mine, seat, seats);
    hwloc_bitmap_free(mine);
    hwloc_topology_destroy(t);
    return taken;
}
