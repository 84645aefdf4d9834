"""Which package of a distribution has a shared library: those that sources are often built against."""

from __future__ import annotations

from typing import Dict, Tuple

# By the library's name: Debian's package, Alpine's, and that of Red Hat and Fedora.
PACKAGES: Dict[str, Tuple[str, str, str]] = {
    "libblas.so.3": ("libblas3", "blas", "blas"),
    "libbz2.so.1": ("libbz2-1.0", "libbz2", "bzip2-libs"),
    "libbz2.so.1.0": ("libbz2-1.0", "libbz2", ""),
    "libcairo.so.2": ("libcairo2", "cairo", "cairo"),
    "libcurl-gnutls.so.4": ("libcurl3-gnutls", "", ""),
    "libcurl.so.4": ("libcurl4", "libcurl", "libcurl"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus-libs", "dbus-libs"),
    "libEGL.so.1": ("libegl1", "mesa-egl", "libglvnd-egl"),
    "libenchant-2.so.2": ("libenchant-2-2", "enchant2-libs", "enchant2"),
    "libexpat.so.1": ("libexpat1", "libexpat", "expat"),
    "libffi.so.8": ("libffi8", "libffi", "libffi"),
    "libfreetype.so.6": ("libfreetype6", "freetype", "freetype"),
    "libgcc_s.so.1": ("libgcc-s1", "libgcc", "libgcc"),
    "libgfortran.so.5": ("libgfortran5", "libgfortran", "libgfortran"),
    "libgirepository-1.0.so.1": ("libgirepository-1.0-1", "gobject-introspection", "gobject-introspection"),
    "libGL.so.1": ("libgl1", "mesa-gl", "libglvnd-glx"),
    "libglib-2.0.so.0": ("libglib2.0-0", "glib", "glib2"),
    "libgmp.so.10": ("libgmp10", "gmp", "gmp"),
    "libgomp.so.1": ("libgomp1", "libgomp", "libgomp"),
    "libjpeg.so.62": ("libjpeg62-turbo", "", "libjpeg-turbo"),
    "libjpeg.so.8": ("", "libjpeg-turbo", ""),
    "libkrb5.so.3": ("libkrb5-3", "krb5-libs", "krb5-libs"),
    "liblapack.so.3": ("liblapack3", "lapack", "lapack"),
    "liblber.so.2": ("", "libldap", "openldap"),
    "libldap-2.5.so.0": ("libldap-2.5-0", "", ""),
    "libldap.so.2": ("libldap2", "libldap", "openldap"),
    "liblz4.so.1": ("liblz4-1", "lz4-libs", "lz4-libs"),
    "liblzma.so.5": ("liblzma5", "xz-libs", "xz-libs"),
    "libmagic.so.1": ("libmagic1", "libmagic", "file-libs"),
    "libmariadb.so.3": ("libmariadb3", "mariadb-connector-c", "mariadb-connector-c"),
    "libncursesw.so.6": ("libncursesw6", "libncursesw", "ncurses-libs"),
    "libodbc.so.2": ("libodbc2", "unixodbc", "unixODBC"),
    "libopenblas.so.0": ("libopenblas0-pthread", "", "openblas"),
    "libopenblas.so.3": ("", "openblas", ""),
    "libpng16.so.16": ("libpng16-16", "libpng", "libpng"),
    "libpq.so.5": ("libpq5", "libpq", "libpq"),
    "libreadline.so.8": ("libreadline8", "readline", "readline"),
    "libsasl2.so.2": ("libsasl2-2", "", ""),
    "libsasl2.so.3": ("", "libsasl", "cyrus-sasl-lib"),
    "libsnappy.so.1": ("libsnappy1v5", "snappy", "snappy"),
    "libsqlite3.so.0": ("libsqlite3-0", "sqlite-libs", "sqlite-libs"),
    "libssl.so.3": ("libssl3", "libssl3", "openssl-libs"),
    "libcrypto.so.3": ("libssl3", "libcrypto3", "openssl-libs"),
    "libstdc++.so.6": ("libstdc++6", "libstdc++", "libstdc++"),
    "libsybdb.so.5": ("libsybdb5", "freetds", "freetds-libs"),
    "libusb-1.0.so.0": ("libusb-1.0-0", "libusb", "libusb1"),
    "libuuid.so.1": ("libuuid1", "libuuid", "libuuid"),
    "libxml2.so.2": ("libxml2", "libxml2", "libxml2"),
    "libxmlsec1.so.1": ("libxmlsec1", "xmlsec", "xmlsec1"),
    "libxslt.so.1": ("libxslt1.1", "libxslt", "libxslt"),
    "libyaml-0.so.2": ("libyaml-0-2", "yaml", "libyaml"),
    "libz.so.1": ("zlib1g", "zlib", "zlib"),
    "libzmq.so.5": ("libzmq5", "libzmq", "zeromq"),
    "libzstd.so.1": ("libzstd1", "zstd-libs", "libzstd"),
}


def package_of(library: str, path: str = "/etc/os-release") -> str:
    """The package of this image's distribution that has the library; empty if that is not known."""
    debian, alpine, red_hat = PACKAGES.get(library, ("", "", ""))
    try:
        with open(path, encoding="utf-8") as file:
            told = dict(line.strip().partition("=")[::2] for line in file if "=" in line)
    except OSError:
        return ""
    names = {word for key in ("ID", "ID_LIKE") for word in told.get(key, "").strip("\"'").split()}
    if "debian" in names:
        return debian
    if names & {"rhel", "fedora", "centos"}:
        return red_hat
    if names & {"wolfi", "chainguard"}:
        return "so:" + library  # apk finds a package by what it provides
    return alpine if "alpine" in names else ""
