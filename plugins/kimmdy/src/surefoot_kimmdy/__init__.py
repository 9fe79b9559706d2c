"""Hydrogen transfers for KIMMDY: surefoot's candidates, barriers and error bars as its recipes.

This distribution imports kimmdy, which is under the GNU General Public License 3, and so is under
it too: surefoot-kimmdy is free software, which you can redistribute and modify under the terms of
that licence as published by the Free Software Foundation, version 3 or, at your option, any later
one; it comes without any warranty. surefoot itself is under Apache-2.0 and does not import this.
"""
# SPDX-License-Identifier: GPL-3.0-or-later
