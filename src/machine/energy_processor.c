/* TDP per hardware thread: from the table for virtual machines, which see a part of a socket;
 * with the socket's own number of threads where /proc/cpuinfo is not a hypervisor's. */
#include "machine/energy.h"

#include "base/sys.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Threads of one socket. The watts of EPYC 7xx2 and 7xx3 are those of codecarbon's list;
 * the rest is recalled from the makers' data sheets and was not checked one by one: the
 * model's interval, half to 2.5 times, is wider than such an error. */
static const struct { const char *name; int tdp, threads; } processors[] = {
    { "EPYC 7402", 180, 48 },  { "EPYC 7452", 155, 64 },  { "EPYC 7502", 180, 64 },
    { "EPYC 7502P", 180, 64 }, { "EPYC 7513", 200, 64 },  { "EPYC 7542", 225, 64 },
    { "EPYC 7543", 225, 64 },  { "EPYC 7551", 180, 64 },  { "EPYC 7601", 180, 64 },
    { "EPYC 75F3", 280, 64 },  { "EPYC 7642", 225, 96 },  { "EPYC 7702", 200, 128 },
    { "EPYC 7702P", 200, 128 }, { "EPYC 7713", 225, 128 }, { "EPYC 7713P", 225, 128 },
    { "EPYC 7742", 225, 128 }, { "EPYC 7763", 280, 128 }, { "EPYC 7B12", 240, 128 },
    { "EPYC 7H12", 280, 128 }, { "EPYC 9354", 280, 64 },  { "EPYC 9454", 290, 96 },
    { "EPYC 9554", 360, 128 }, { "EPYC 9654", 360, 192 }, { "EPYC 9754", 360, 256 },
    { "E5-2670 v3", 120, 24 }, { "E5-2680 v3", 120, 24 }, { "E5-2680 v4", 120, 28 },
    { "E5-2686 v4", 145, 36 }, { "E5-2690 v4", 135, 28 }, { "E5-2699 v4", 145, 44 },
    { "Gold 6130", 125, 32 },  { "Gold 6148", 150, 40 },  { "Gold 6230", 125, 40 },
    { "Gold 6240", 150, 36 },  { "Gold 6248", 150, 40 },  { "Gold 6248R", 205, 48 },
    { "Gold 6338", 205, 64 },  { "Gold 6348", 235, 56 },  { "Platinum 8160", 150, 48 },
    { "Platinum 8168", 205, 48 }, { "Platinum 8180", 205, 56 }, { "Platinum 8260", 165, 48 },
    { "Platinum 8268", 205, 48 }, { "Platinum 8280", 205, 56 }, { "Platinum 8358", 250, 64 },
    { "Platinum 8360Y", 250, 72 }, { "Platinum 8368", 270, 76 }, { "Platinum 8380", 270, 80 },
    { "Platinum 8468", 350, 96 }, { "Platinum 8480+", 350, 112 },
    { "Platinum 8490H", 350, 120 }, { "Platinum 8592+", 350, 128 },
    { "i5-8250U", 15, 8 },     { "i7-8550U", 15, 8 },     { "i7-1165G7", 28, 8 },
    { "i7-8700", 65, 12 },     { "i7-8700K", 95, 12 },    { "i9-9900K", 95, 16 },
    { "i7-10700K", 125, 16 },  { "i9-10900K", 125, 20 },  { "i7-12700K", 125, 20 },
    { "i9-12900K", 125, 24 },  { "i9-13900K", 125, 32 },  { "Ryzen 5 3600", 65, 12 },
    { "Ryzen 5 5600X", 65, 12 }, { "Ryzen 7 3700X", 65, 16 }, { "Ryzen 7 5800X", 105, 16 },
    { "Ryzen 9 3950X", 105, 32 }, { "Ryzen 9 5950X", 105, 32 }, { "Ryzen 9 7950X", 170, 32 },
    { "Threadripper 3970X", 280, 64 }, { "Threadripper 3990X", 280, 128 },
};

static double watts_of(int i)
{
    return (double)processors[i].tdp / processors[i].threads;
}

static int by_watts(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double energy_usual_watts(void)
{
    double watts[COUNT_OF(processors)];
    for (int i = 0; i < (int)COUNT_OF(processors); i++)
        watts[i] = watts_of(i);
    qsort(watts, COUNT_OF(watts), sizeof *watts, by_watts);
    return watts[COUNT_OF(watts) / 2];
}

/* "i7-8700" is not in "i7-8700K". -1: none. */
static int find_processor(const char *name)
{
    for (int i = 0; i < (int)COUNT_OF(processors); i++) {
        const char *at = strstr(name, processors[i].name);
        char after = at ? at[strlen(processors[i].name)] : 'x';
        if (!isalnum((unsigned char)after) && after != '+')
            return i;
    }
    return -1;
}

struct cpuinfo {
    char name[128];
    int siblings; /* hardware threads of a socket, as seen */
    bool guest;
};

static void read_cpuinfo(struct cpuinfo *c, const char *path)
{
    char line[8192];
    FILE *f = sys_fopen(path, "r");
    while (f && fgets(line, sizeof line, f) && line[0] != '\n') { /* the first processor */
        const char *colon = strchr(line, ':');
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "model name", 10) == 0 && colon)
            snprintf(c->name, sizeof c->name, "%.120s", colon + 2);
        if (strncmp(line, "siblings", 8) == 0 && colon)
            c->siblings = atoi(colon + 1);
        if (strncmp(line, "flags", 5) == 0)
            c->guest = strstr(line, " hypervisor") != NULL;
    }
    if (f)
        sys_fclose(f);
}

void energy_processor_read(struct energy_processor *p, const char *cpuinfo)
{
    struct cpuinfo c = { .name = "unknown" };
    read_cpuinfo(&c, cpuinfo);
    *p = (struct energy_processor){ .watts = energy_usual_watts() };
    snprintf(p->name, sizeof p->name, "%s", c.name);
    int i = find_processor(c.name);
    if (i < 0)
        return;
    p->known = true;
    p->watts = watts_of(i);
    if (!c.guest && c.siblings > 0)
        p->watts = (double)processors[i].tdp / c.siblings;
}
