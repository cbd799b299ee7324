/* cluster.h - a cluster and how fast its ranks are: the file that calibrate writes and plan reads. */
#ifndef BG_CLUSTER_H
#define BG_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>

#include "bregman/cost.h"
#include "bregman/status.h"

/* What one rank of `threads` threads takes, while the node's other ranks work as well. */
typedef struct {
    double s[BG_COSTS];                 /* seconds of each kind of work */
    double threads, subgrid_efficiency; /* of a decomposition by several ranks */
    double message_s, message_byte_s;
    double process_bytes; /* a process that has done nothing yet */
} bg_profile;

typedef struct {
    char name[64];
    size_t nodes, cores_per_node, ranks_per_node;       /* ranks_per_node 0: to be chosen */
    double memory_gb_per_node, network_gb_s, disk_gb_s; /* network: of a node; disk: of the whole file system */
    bool scratch;                                       /* nodes have a disk of their own */
    bg_profile profile;
} bg_cluster;

/* A node of two 64-core processors as assumed where no --cluster is given: README.md says what is assumed. */
void bg_cluster_reference(bg_cluster *out);
/* Read a cluster file.  Errors: BG_EIO, BG_EFORMAT naming the file and the key. */
bg_status bg_cluster_read(bg_cluster *out, const char *path, bg_err *err) BG_MUST_CHECK;
bg_status bg_cluster_write(const bg_cluster *c, const char *path, bg_err *err) BG_MUST_CHECK;
/* The profile of ranks with another number of threads: rates in proportion, serial work as it is. */
bg_profile bg_profile_scaled(const bg_profile *p, double threads);

/* Seconds of one of `ranks` ranks that do as much at once. */
double bg_cluster_seconds(const bg_cluster *c, const bg_profile *p, double ranks, const bg_cost *cost);

#endif /* BG_CLUSTER_H */
