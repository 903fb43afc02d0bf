# SPDX-License-Identifier: Apache-2.0
"""The guest harness: Debian guests in QEMU, for the guest tests, the demo and the measurements.

A test reads like this::

    async with boot_guest(image, workdir=tmp_path, devices=["-device", "usb-ccid"]) as guest:
        listed = await guest.run("opensc-tool", "--list-readers")
"""
