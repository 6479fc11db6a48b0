"""Where clips come from: tables, folders and archives of them, on disks and in object stores."""
