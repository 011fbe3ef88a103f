/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What log.h leaves to the unit: the ring buffer that all cubes share. Included by unit.h only. */
#pragma once

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} pcn_logs PCN_MAPS;

CFG(enum pcn_log_level, pcn_loglevel);

struct pcn_log_line *pcn_log_begin(void)
{
	struct pcn_log_line *line = bpf_ringbuf_reserve(&pcn_logs, sizeof(*line), 0);

	if (line)
		line->cube = pcn_cube;
	return line;
}

void pcn_log_end(struct pcn_log_line *line)
{
	bpf_ringbuf_submit(line, 0);
}
