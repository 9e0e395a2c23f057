"""filelock (4.2), which `datasets` holds its caches with: file systems that have no locks."""

import errno


def allow_no_locks() -> None:
    """Has filelock hold a file that names its owner wherever `flock` is refused. By itself it does
    so for ENOSYS only; Lustre mounted without locks, and some network file systems, have other
    words for it.
    """
    from filelock import _unix

    ask = _unix.lock_fd_nonblocking

    def ask_in_one_word(_fd: int) -> bool:
        try:
            return ask(_fd)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise OSError(errno.ENOSYS, error.strerror) from error
            raise

    _unix.lock_fd_nonblocking = ask_in_one_word
