"""Which package of a distribution has a shared library: those that sources are often built against."""

from __future__ import annotations

from typing import Dict, Tuple

# By the library's name: Debian's package, and Alpine's.
PACKAGES: Dict[str, Tuple[str, str]] = {
    "libblas.so.3": ("libblas3", "blas"),
    "libbz2.so.1": ("libbz2-1.0", "libbz2"),
    "libbz2.so.1.0": ("libbz2-1.0", "libbz2"),
    "libcairo.so.2": ("libcairo2", "cairo"),
    "libcurl-gnutls.so.4": ("libcurl3-gnutls", ""),
    "libcurl.so.4": ("libcurl4", "libcurl"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus-libs"),
    "libEGL.so.1": ("libegl1", "mesa-egl"),
    "libenchant-2.so.2": ("libenchant-2-2", "enchant2-libs"),
    "libexpat.so.1": ("libexpat1", "libexpat"),
    "libffi.so.8": ("libffi8", "libffi"),
    "libfreetype.so.6": ("libfreetype6", "freetype"),
    "libgcc_s.so.1": ("libgcc-s1", "libgcc"),
    "libgfortran.so.5": ("libgfortran5", "libgfortran"),
    "libgirepository-1.0.so.1": ("libgirepository-1.0-1", "gobject-introspection"),
    "libGL.so.1": ("libgl1", "mesa-gl"),
    "libglib-2.0.so.0": ("libglib2.0-0", "glib"),
    "libgmp.so.10": ("libgmp10", "gmp"),
    "libgomp.so.1": ("libgomp1", "libgomp"),
    "libjpeg.so.62": ("libjpeg62-turbo", ""),
    "libjpeg.so.8": ("", "libjpeg-turbo"),
    "libkrb5.so.3": ("libkrb5-3", "krb5-libs"),
    "liblapack.so.3": ("liblapack3", "lapack"),
    "liblber.so.2": ("", "libldap"),
    "libldap-2.5.so.0": ("libldap-2.5-0", ""),
    "libldap.so.2": ("libldap2", "libldap"),
    "liblz4.so.1": ("liblz4-1", "lz4-libs"),
    "liblzma.so.5": ("liblzma5", "xz-libs"),
    "libmagic.so.1": ("libmagic1", "libmagic"),
    "libmariadb.so.3": ("libmariadb3", "mariadb-connector-c"),
    "libncursesw.so.6": ("libncursesw6", "libncursesw"),
    "libodbc.so.2": ("libodbc2", "unixodbc"),
    "libopenblas.so.0": ("libopenblas0-pthread", ""),
    "libopenblas.so.3": ("", "openblas"),
    "libpng16.so.16": ("libpng16-16", "libpng"),
    "libpq.so.5": ("libpq5", "libpq"),
    "libreadline.so.8": ("libreadline8", "readline"),
    "libsasl2.so.2": ("libsasl2-2", ""),
    "libsasl2.so.3": ("", "libsasl"),
    "libsnappy.so.1": ("libsnappy1v5", "snappy"),
    "libsqlite3.so.0": ("libsqlite3-0", "sqlite-libs"),
    "libssl.so.3": ("libssl3", "libssl3"),
    "libcrypto.so.3": ("libssl3", "libcrypto3"),
    "libstdc++.so.6": ("libstdc++6", "libstdc++"),
    "libsybdb.so.5": ("libsybdb5", "freetds"),
    "libusb-1.0.so.0": ("libusb-1.0-0", "libusb"),
    "libuuid.so.1": ("libuuid1", "libuuid"),
    "libxml2.so.2": ("libxml2", "libxml2"),
    "libxmlsec1.so.1": ("libxmlsec1", "xmlsec"),
    "libxslt.so.1": ("libxslt1.1", "libxslt"),
    "libyaml-0.so.2": ("libyaml-0-2", "yaml"),
    "libz.so.1": ("zlib1g", "zlib"),
    "libzmq.so.5": ("libzmq5", "libzmq"),
    "libzstd.so.1": ("libzstd1", "zstd-libs"),
}


def package_of(library: str) -> str:
    """The package of this image's distribution that has the library; empty if that is not known."""
    debian, alpine = PACKAGES.get(library, ("", ""))
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            told = dict(line.strip().partition("=")[::2] for line in file if "=" in line)
    except OSError:
        return ""
    names = "%s %s" % (told.get("ID", ""), told.get("ID_LIKE", ""))
    if "debian" in names:
        return debian
    return alpine if "alpine" in names else ""
