/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Addresses of 16 bytes, IPv4 ones mapped (::ffff:a.b.c.d). By words: memcpy() and memcmp() know of no alignment and would go byte by byte;
 * a frame's own is that of the NIC, which the architectures with BPF take.
 */
#pragma once

#include <linux/types.h>

static __always_inline __u32 pcn_word(const void *at)
{
	return *(const __u32 *)at;
}

static __always_inline int pcn_same_address(const void *a, const void *b)
{
	return !((pcn_word(a) ^ pcn_word(b)) | (pcn_word(a + 4) ^ pcn_word(b + 4)) | (pcn_word(a + 8) ^ pcn_word(b + 8)) |
		 (pcn_word(a + 12) ^ pcn_word(b + 12)));
}

static __always_inline void pcn_copy_address(void *to, const void *from)
{
	__u32 *words = to;

	words[0] = pcn_word(from);
	words[1] = pcn_word(from + 4);
	words[2] = pcn_word(from + 8);
	words[3] = pcn_word(from + 12);
}

/* Whether it is all zeros. */
static __always_inline int pcn_no_address(const void *address)
{
	return !(pcn_word(address) | pcn_word(address + 4) | pcn_word(address + 8) | pcn_word(address + 12));
}
