/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Log lines of the data plane. A line below the cube's log level costs a comparison with a constant (none in a fused unit), one above it a
 * record of a ring buffer, from which the daemon makes a line of its log; formatting is done there.
 */
#pragma once

#include <linux/types.h>

#define PCN_LOG_TEXT 112 /* bytes of a format, its end included */
#define PCN_LOG_ARGS 4

/* Levels as upstream names them; those of the model's loglevel, in the same order. */
enum pcn_log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERR, LOG_CRITICAL, LOG_OFF };

/* A line on its way up. */
struct pcn_log_line {
	__u64 argument[PCN_LOG_ARGS];
	__u32 cube;
	__u16 level;
	__u16 arguments;
	char format[PCN_LOG_TEXT];
};

/* The unit's (unit_log.h). */
extern enum pcn_log_level pcn_loglevel;
struct pcn_log_line *pcn_log_begin(void);
void pcn_log_end(struct pcn_log_line *line);

/*
 * pcn_log(ctx, LOG_DEBUG, "%M moved to port %u", mac, port): a line in the cube's name. Up to four numbers: %d %i %u %x %c as in printf (32
 * bits; with l or ll: 64), and, of values in network byte order, %I an IPv4 address, %P a port, %M a MAC address in the low six bytes.
 */
#define pcn_log(_ctx, _level, _format, ...)                                                                                          \
	do {                                                                                                                         \
		if ((_level) >= pcn_loglevel) {                                                                                      \
			struct pcn_log_line *_line = pcn_log_begin();                                                                \
			__u64 _given[] = {0, ##__VA_ARGS__};                                                                         \
                                                                                                                                     \
			_Static_assert(sizeof(_format) <= PCN_LOG_TEXT, "the format of a log line is too long");                     \
			_Static_assert(sizeof(_given) / sizeof(_given[0]) <= PCN_LOG_ARGS + 1, "a log line takes up to four values"); \
			if (_line) {                                                                                                 \
				_line->level = (_level);                                                                             \
				_line->arguments = sizeof(_given) / sizeof(_given[0]) - 1;                                           \
				__builtin_memcpy(_line->argument, _given + 1, sizeof(_given) - sizeof(_given[0]));                   \
				__builtin_memcpy(_line->format, _format, sizeof(_format));                                           \
				pcn_log_end(_line);                                                                                  \
			}                                                                                                            \
		}                                                                                                                    \
	} while (0)

/* The six bytes of a MAC address, for %M. */
static __always_inline __u64 pcn_log_mac(const unsigned char *mac)
{
	__u64 value = 0;

	__builtin_memcpy(&value, mac, 6);
	return value;
}

/* A line about the frame itself: length, addresses, EtherType. */
#define pcn_pkt_log(_ctx, _pkt, _level)                                                                                              \
	do {                                                                                                                         \
		if ((_level) >= pcn_loglevel) {                                                                                      \
			struct ethhdr *_eth = pcn_at(_ctx, 0, sizeof(*_eth));                                                        \
                                                                                                                                     \
			if (_eth)                                                                                                    \
				pcn_log(_ctx, _level, "frame of %u bytes by port %u, %M to %M", (_pkt)->len, (_pkt)->in_port,        \
					pcn_log_mac(_eth->h_source), pcn_log_mac(_eth->h_dest));                                     \
		}                                                                                                                    \
	} while (0)
