/* identity.h - by what an input is known.
 *
 * A file with a fingerprint (/run/fingerprint) is known by that: its identity is
 * bg_hash_texts({ fingerprint }).  Made again from the same inputs it is the same, though its bytes hold the time of
 * day. Any other file is known by the hash of its content, a model by the hashes of its config.json and weights.
 * scripts/bregman/files.py has the same definition, as input_identity.
 * A file that its folder's MANIFEST lists is refused if its content has another hash than is listed: a fingerprint
 * says what a file was made from, not that nobody has written to it since.  Of a file that is not listed it is
 * believed: who changes the datasets of such a file by hand has to take its fingerprint away. */
#ifndef BG_IDENTITY_H
#define BG_IDENTITY_H

#include "bregman/store.h"

/* The identity that the file itself has, or "". */
bg_status bg_store_identity(const bg_store *s, bg_hash *out, bg_err *err) BG_MUST_CHECK;
/* Identity of a file.  Local.  Cost: it is read once as long as it stays the same (bg_hash_file_once), unless it has a
 * fingerprint and is not listed.  Errors: BG_EIO; BG_EFORMAT of a damaged HDF5 file; BG_ESTALE: it is not as it is
 * listed.
 */
bg_status bg_input_identity(const char *path, bg_hash *out, bg_err *err) BG_MUST_CHECK;
/* Only the comparison with the MANIFEST; content [in]: hash of the file's bytes, NULL if it has a fingerprint. */
bg_status bg_input_check_listed(const char *path, const bg_hash *content, bg_err *err) BG_MUST_CHECK;

#endif /* BG_IDENTITY_H */
